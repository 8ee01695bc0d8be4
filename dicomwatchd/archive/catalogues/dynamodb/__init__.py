"""A catalogue in one DynamoDB table."""
