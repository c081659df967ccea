-- Schema 1. Paths are (directory's node, name); events are (replica's index, counter) as variable-length integers.

-- One row: the newest local sequence number, the newest own counter that stands in the rows, the end of the
-- reserved block of counters, the journal's floor, the number of live paths below the root.
CREATE TABLE clock (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  seq INTEGER NOT NULL,
  counter INTEGER NOT NULL,
  reserved INTEGER NOT NULL,
  floor INTEGER NOT NULL,
  live INTEGER NOT NULL
);

CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;

CREATE TABLE replica (ix INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE);

-- Every start that made something: first counter it could make, newest own counter in the rows then, nonce.
CREATE TABLE lineage (
  start INTEGER PRIMARY KEY AUTOINCREMENT,
  first INTEGER NOT NULL,
  known INTEGER NOT NULL,
  nonce INTEGER NOT NULL
);

-- Interned vectors. Purpose 0: knowledge, for entry.o; a missing one is empty. Purpose 1: sets of events, for m and c.
CREATE TABLE vector (id INTEGER PRIMARY KEY AUTOINCREMENT, purpose INTEGER NOT NULL, v BLOB NOT NULL);

-- One for every live directory, and for every other path with rows or knowledge below it. seq is the newest
-- sequence number at or below it; before born, what was below may have gone without ghosts.
CREATE TABLE node (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  parent INTEGER NOT NULL,
  name BLOB NOT NULL,
  s BLOB,
  bound BLOB NOT NULL,
  digest BLOB NOT NULL,
  seq INTEGER NOT NULL,
  born INTEGER NOT NULL
);

-- One for every live path and every ghost. kind: 0 ghost, 1 file, 2 symbolic link, 3 directory. c is NULL when it
-- equals m, o is 0 for none, content is a hash or a link's target, attrs holds only what the signature does not imply.
CREATE TABLE entry (
  parent INTEGER NOT NULL,
  name BLOB NOT NULL,
  kind INTEGER NOT NULL,
  node INTEGER,
  seq INTEGER NOT NULL,
  m BLOB,
  c BLOB,
  o INTEGER NOT NULL,
  sig BLOB,
  content BLOB,
  attrs BLOB,
  PRIMARY KEY (parent, name)
) WITHOUT ROWID;

CREATE INDEX entry_ghost ON entry (seq) WHERE kind = 0;

CREATE TABLE peer (
  id BLOB PRIMARY KEY,
  instance INTEGER NOT NULL,
  incorporated INTEGER NOT NULL,
  seen_counter INTEGER NOT NULL,
  seen_nonce INTEGER NOT NULL,
  location BLOB NOT NULL
) WITHOUT ROWID;

CREATE TABLE pending (
  peer BLOB NOT NULL,
  path BLOB NOT NULL,
  why INTEGER,
  theirs BLOB,
  known BLOB NOT NULL,
  decision INTEGER,
  PRIMARY KEY (peer, path)
) WITHOUT ROWID;

CREATE TABLE intent (id INTEGER PRIMARY KEY AUTOINCREMENT, body BLOB NOT NULL);

CREATE TABLE version (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  name BLOB NOT NULL,
  path BLOB NOT NULL,
  kind INTEGER NOT NULL,
  sig BLOB NOT NULL,
  hash BLOB,
  kept_at INTEGER NOT NULL,
  reason TEXT NOT NULL
);

CREATE INDEX version_path ON version (path);
CREATE INDEX version_age ON version (kept_at);
