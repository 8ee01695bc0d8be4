"""What dicomwatchd-web and a person's commands share: the tokens, by their hashes, and the record of who has looked at
what."""
