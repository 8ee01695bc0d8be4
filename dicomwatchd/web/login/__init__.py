"""Who it is: tokens, a reverse proxy's word, OpenID Connect; and the sessions of those who have logged in."""
