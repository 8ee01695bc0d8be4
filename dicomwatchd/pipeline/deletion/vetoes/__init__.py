"""What forbids that a file is deleted: it is an object itself, a lease or a right is missing, and so on."""
