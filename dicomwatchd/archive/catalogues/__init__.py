"""What finds studies: the port that every catalogue keeps, one in a SQLite file, one in DynamoDB."""
