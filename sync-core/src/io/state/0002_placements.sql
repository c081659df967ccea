-- Schema 2. Directories of the root that lie elsewhere.

-- A cold root that is used, or was: the id in its marker, its path, the name of this root's private folder there.
CREATE TABLE cold (id BLOB PRIMARY KEY, path BLOB NOT NULL, key TEXT NOT NULL) WITHOUT ROWID;

-- A directory that lies in a cold root: where in it, whose rule placed it, the id of its stamp there, what the link at its
-- path reads, and what it may read while that is changed. Once it is settled, nothing but the link may stand at the path.
CREATE TABLE placement (
  path BLOB PRIMARY KEY,
  cold BLOB NOT NULL,
  at BLOB NOT NULL,
  job TEXT NOT NULL,
  stamp BLOB NOT NULL,
  link BLOB NOT NULL,
  other_link BLOB,
  settled INTEGER NOT NULL
) WITHOUT ROWID;

-- A link in such a directory that reads otherwise on the disk than it is synchronised.
CREATE TABLE rewritten (path BLOB PRIMARY KEY, disk BLOB NOT NULL, target BLOB NOT NULL) WITHOUT ROWID;
