"""What the page to log in at says, before anybody has logged in."""

from __future__ import annotations

WORDS = {
    "en": {
        "title": "Log in",
        "heading": "The image archive",
        "token": "Token",
        "enter": "Log in with a token",
        "bad-token": "This token is not valid.",
        "failed": "The log-in did not work. Try it again.",
        "no-right": "You are known, but you have no right to anything here.",
        "wrong-provider": "The place where you log in is not what it should be. Tell whoever looks after this page.",
        "no-provider": "The place where you log in does not answer as it should. Try again in a moment.",
        "left": "You have logged out here.",
        "leave-provider": "Log out at the provider, too",
        "at-the-proxy": "Log in at the reverse proxy in front of this page.",
    },
    "de": {
        "title": "Anmelden",
        "heading": "Das Bildarchiv",
        "token": "Token",
        "enter": "Mit einem Token anmelden",
        "bad-token": "Dieses Token gilt nicht.",
        "failed": "Die Anmeldung ist nicht gelungen. Versuchen Sie es noch einmal.",
        "no-right": "Sie sind bekannt, haben hier aber keine Rechte.",
        "wrong-provider": "Der Anmeldedienst ist nicht so eingerichtet, wie er es sein müsste. Sagen Sie es denen, die"
        " diese Seite betreuen.",
        "no-provider": "Der Anmeldedienst antwortet nicht, wie er soll. Versuchen Sie es gleich noch einmal.",
        "left": "Sie haben sich hier abgemeldet.",
        "leave-provider": "Auch beim Anmeldedienst abmelden",
        "at-the-proxy": "Melden Sie sich beim Reverse-Proxy vor dieser Seite an.",
    },
}
