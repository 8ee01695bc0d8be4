"""Clients of AWS's services, or of those that speak like them: credentials, limits, and what their answers mean."""
