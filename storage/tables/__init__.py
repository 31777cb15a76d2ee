"""The tables over the commit records: columns, folds, snapshots, SQL."""
