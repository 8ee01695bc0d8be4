"""What a person sees in a browser, compared with what must be there: Debian's Chromium, driven by Playwright."""
