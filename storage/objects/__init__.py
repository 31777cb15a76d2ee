"""Where bytes lie: a local folder or S3 behind one protocol of objects by key."""
