"""The image of a disc that is given to `upload` as a file: read (`iso9660`), and unpacked (`unpacking`)."""
