"""Routes of the HTTP interface, one file a group; each file declares what it takes and returns."""
