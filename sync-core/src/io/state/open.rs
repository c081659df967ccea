//! Opening and closing: lock, migrations, damage.

use super::error::{Attempt, Result, StateError, io_error, random};
use super::identity::Ticker;
use super::lock::{self, Lock};
use super::names::Names;
use super::{Clock, Published, State, Writer, place, records};
use crate::entry::AttrMask;
use crate::knowledge::ReplicaId;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, params};
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Name of the state's file in its folder.
const STATE_FILE: &str = "state.db";
/// SQLite's companions of the file.
const COMPANIONS: [&str; 2] = ["-wal", "-shm"];
/// "drft": marks the file as a state of this program.
const APPLICATION: i32 = 0x6472_6674;
/// The schemas, in order; a released one never changes.
const MIGRATIONS: [&str; 2] = [include_str!("0001_state.sql"), include_str!("0002_placements.sql")];
/// Oldest SQLite without the defect of resetting the write-ahead log.
const MIN_SQLITE: i32 = 3_051_003;
/// Pages in the write-ahead log (of 4 KiB) from which a commit also checkpoints.
const CHECKPOINT_PAGES: i64 = 8192;
/// What stays of the log's file after a checkpoint, bytes.
const LOG_BYTES: i64 = 64 << 20;
/// Other connections of this process hold the file for moments only.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);
/// Statements kept prepared on each connection.
const STATEMENTS: usize = 64;
/// Page cache of the writing and of a reading connection, KiB.
const WRITER_CACHE_KIB: i64 = 16 * 1024;
const READER_CACHE_KIB: i64 = 4 * 1024;

/// Why a file could not be opened as a state.
enum Trouble {
    Damage(String),
    Other(StateError),
}

impl From<StateError> for Trouble {
    fn from(error: StateError) -> Trouble {
        match error {
            StateError::Sqlite { source, .. } if is_damage(&source) => Trouble::Damage(source.to_string()),
            StateError::Content { what } => Trouble::Damage(format!("it holds {what} that cannot be read")),
            other => Trouble::Other(other),
        }
    }
}

fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::Error;
    match error {
        Error::SqliteFailure(error, _) => matches!(error.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase),
        // A table, a column or a row that every state has.
        Error::QueryReturnedNoRows | Error::InvalidColumnType(..) | Error::FromSqlConversionFailure(..) => true,
        Error::SqlInputError { .. } => true,
        _ => false,
    }
}

impl State {
    /// Does `dir` hold a state? Nothing is opened or locked.
    #[must_use]
    pub fn exists(dir: &Path) -> bool {
        dir.join(STATE_FILE).symlink_metadata().is_ok_and(|stat| stat.len() > 0)
    }

    /// Opens or creates `state.db` in `dir` (the root's `.driftless`, or a folder given by the user), which exists.
    ///
    /// # Errors
    /// [`StateError::Locked`], [`StateError::Newer`] (the file is left untouched), [`StateError::Damaged`] (it was
    /// moved aside, and no other was made), and what the system and SQLite report.
    pub fn open(dir: &Path, mask: AttrMask) -> Result<State> {
        if rusqlite::version_number() < MIN_SQLITE {
            return Err(StateError::Library { found: rusqlite::version() });
        }
        let lock = Lock::acquire(dir)?;
        let file = dir.join(STATE_FILE);
        if !State::exists(dir) {
            // SQLite would make it readable for everybody.
            let mut options = OpenOptions::new();
            options.create(true).append(true).mode(0o600).open(&file).map_err(io_error("create", &file))?;
        }
        let opened = connect(&file)
            .and_then(|(conn, created)| State::assemble(conn, mask).map(|state| (state, created)).map_err(Trouble::from));
        let (mut state, created) = match opened {
            Ok(opened) => opened,
            Err(Trouble::Other(error)) => return Err(error),
            Err(Trouble::Damage(reason)) => return Err(move_aside(&file, reason)?),
        };
        if created {
            sync_dir(dir)?;
        }
        let here = place::here(&file)?;
        match state.meta("state.place")? {
            Some(recorded) => state.moved = place::difference(&recorded, &here),
            None => state.put_meta("state.place", &here)?,
        }
        state.readers = Some(Mutex::new(Vec::new()));
        state.file = Some(file);
        state.created = created;
        state._lock = Some(lock);
        Ok(state)
    }

    /// Opens the state in `dir` to look at it: nothing is made, brought up to date, written back or moved aside. Nobody else works
    /// with it as long as this lives.
    ///
    /// # Errors
    /// [`StateError::Locked`], [`StateError::Newer`], [`StateError::Unsound`], and what the system and SQLite report.
    pub fn look(dir: &Path, mask: AttrMask) -> Result<State> {
        let lock = Lock::acquire(dir)?;
        let file = dir.join(STATE_FILE);
        let unsound = |trouble: Trouble| match trouble {
            Trouble::Damage(reason) => StateError::Unsound { path: file.clone(), reason },
            Trouble::Other(error) => error,
        };
        // What a crash left there is the next run's; without it the last connection takes its own companions away again.
        let left = suffixed(&file, COMPANIONS[0]).symlink_metadata().is_ok_and(|stat| stat.len() > 0);
        let looked = || -> std::result::Result<State, Trouble> {
            let conn = reader(&file)?;
            if inspect(&conn, &file)? == 0 {
                return Err(Trouble::Damage("nothing was ever written to it".to_owned()));
            }
            conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, left).attempt("open the file")?;
            Ok(State::assemble(conn, mask)?)
        };
        let mut state = looked().map_err(unsound)?;
        if let Some(recorded) = state.meta("state.place")? {
            state.moved = place::difference(&recorded, &place::here(&file)?);
        }
        state.created = false;
        state._lock = Some(lock);
        Ok(state)
    }

    /// Waits until this process does not hold the state in `dir` any more, and so long at most: for whoever was told
    /// [`StateError::Locked`], and tries again after it.
    pub fn wait_for_release(dir: &Path, wait: Duration) {
        lock::wait_for_release(dir, wait);
    }

    /// SQLite's version, and whether it is new enough for a state.
    #[must_use]
    pub fn library() -> (&'static str, bool) {
        (rusqlite::version(), rusqlite::version_number() >= MIN_SQLITE)
    }

    /// A state that lives in memory.
    ///
    /// # Errors
    /// What SQLite reports.
    pub fn in_memory(id: ReplicaId, mask: AttrMask) -> Result<State> {
        let conn = Connection::open_in_memory().attempt("open a state in memory")?;
        configure(&conn, WRITER_CACHE_KIB)?;
        migrate(&conn, 0, id)?;
        State::assemble(conn, mask)
    }

    /// Records the present place as the state's own: what [`State::moved`] told of was the user's will.
    ///
    /// # Errors
    /// What the system and SQLite report.
    pub fn record_place(&self) -> Result<()> {
        match &self.file {
            Some(file) => self.put_meta("state.place", &place::here(file)?),
            None => Ok(()),
        }
    }

    /// Ends reading and writing: checkpoints and truncates the log.
    ///
    /// # Errors
    /// What SQLite reports; nothing that was committed is lost then.
    pub fn close(self) -> Result<()> {
        let made = self.made.load(Ordering::Acquire);
        let started = self.ticker.lock().expect("no panic while the counter is held").nonce.is_some();
        if started {
            // What was reserved and not used is given back, so that counters have no gaps without a crash.
            self.write(true, |tx| {
                tx.clock.reserved = made.max(tx.clock.counter);
                Ok(())
            })?;
        }
        if let Some(readers) = &self.readers {
            readers.lock().expect("no panic while readers are held").clear();
        }
        let writer = self.writer.lock().expect("no panic while the state is held");
        writer.conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).attempt("write the log back")
    }

    /// Reads what every state has; a value that is missing is damage.
    fn assemble(conn: Connection, mask: AttrMask) -> Result<State> {
        let id = meta_array(&conn, "state.id").map(ReplicaId)?;
        let instance = meta_array(&conn, "state.instance").map(u64::from_le_bytes)?;
        let clock = read_clock(&conn)?;
        let next_node: i64 = conn
            .query_row("SELECT max(seq, (SELECT max(id) FROM node)) FROM sqlite_sequence WHERE name = 'node'", [], |row| {
                row.get(0)
            })
            .attempt("read the number of directories")?;
        conn.query_row(
            "SELECT 1 FROM entry JOIN node ON node.id = entry.node WHERE entry.parent = 0 AND node.id = 1",
            [],
            |_| Ok(()),
        )
        .attempt("read the root")?;
        let names = Names::load(&conn)?;
        Ok(State {
            writer: Mutex::new(Writer { conn, clock, next_node: next_node + 1, full: false, loose: true }),
            readers: None,
            file: None,
            names: RwLock::new(names),
            published: RwLock::new(Published { id, instance, clock }),
            ticker: Mutex::new(Ticker { reserved: clock.reserved, nonce: None }),
            // After a crash some of the reserved counters were used: none of them is used again.
            made: AtomicU64::new(clock.reserved.max(clock.counter)),
            mask,
            moved: None,
            created: true,
            _lock: None,
        })
    }
}

/// Opens the file for writing, brought to the newest schema; true if it was empty.
fn connect(file: &Path) -> std::result::Result<(Connection, bool), Trouble> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(file, flags).attempt("open the file")?;
    let schema = inspect(&conn, file)?;
    configure(&conn, WRITER_CACHE_KIB)?;
    let mode: String = conn.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).attempt("configure the state")?;
    if mode != "wal" {
        return Err(Trouble::Other(StateError::NoLog { path: file.to_owned() }));
    }
    if schema < MIGRATIONS.len() as i64 {
        let id = if schema == 0 { ReplicaId(random()?) } else { ReplicaId::default() };
        migrate(&conn, schema, id)?;
    }
    Ok((conn, schema == 0))
}

/// The schema of a file; 0 if nothing was ever written to it, as after a crash while it was made. One of a newer program stays as it is, down to the log beside it.
fn inspect(conn: &Connection, file: &Path) -> std::result::Result<i64, Trouble> {
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).attempt("open the file")?;
    let number = |pragma: &str| conn.query_row(pragma, [], |row| row.get::<_, i64>(0)).attempt("read the schema's number");
    let (application, schema) = (number("PRAGMA application_id")?, number("PRAGMA user_version")?);
    let empty = application == 0 && schema == 0 && number("SELECT count(*) FROM sqlite_schema")? == 0;
    if !empty && (application != i64::from(APPLICATION) || schema < 1) {
        return Err(Trouble::Damage("it is not a state of driftless".to_owned()));
    }
    if schema > MIGRATIONS.len() as i64 {
        let supported = MIGRATIONS.len() as i64;
        return Err(Trouble::Other(StateError::Newer { path: file.to_owned(), found: schema, supported }));
    }
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false).attempt("open the file")?;
    Ok(schema)
}

/// A connection that only reads.
pub(super) fn reader(file: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(file, flags).attempt("open another connection")?;
    settings(&conn, READER_CACHE_KIB)?;
    conn.pragma_update(None, "query_only", true).attempt("configure a connection")?;
    Ok(conn)
}

fn configure(conn: &Connection, cache_kib: i64) -> Result<()> {
    settings(conn, cache_kib)?;
    let set = || {
        conn.pragma_update(None, "synchronous", "NORMAL")?;
        conn.query_row(&format!("PRAGMA journal_size_limit = {LOG_BYTES}"), [], |_| Ok(()))?;
        conn.query_row(&format!("PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}"), [], |_| Ok(()))
    };
    set().attempt("configure the state")
}

fn settings(conn: &Connection, cache_kib: i64) -> Result<()> {
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    let set = || {
        conn.busy_timeout(BUSY_TIMEOUT)?;
        // A mapped file turns an error of the disk into a signal.
        conn.pragma_update(None, "mmap_size", 0)?;
        conn.pragma_update(None, "cache_size", -cache_kib)?;
        conn.pragma_update(None, "temp_store", "MEMORY")
    };
    set().attempt("configure the state")
}

/// Brings a state from schema `from` to the newest, all or nothing.
fn migrate(conn: &Connection, from: i64, id: ReplicaId) -> Result<()> {
    conn.pragma_update(None, "synchronous", "FULL").attempt("set durability")?;
    let sql = conn.unchecked_transaction().attempt("begin")?;
    let done = usize::try_from(from).map_err(|_| StateError::Content { what: "a schema number" })?;
    for migration in &MIGRATIONS[done..] {
        conn.execute_batch(migration).attempt("bring the schema up to date")?;
    }
    conn.pragma_update(None, "application_id", APPLICATION).attempt("mark the state")?;
    conn.pragma_update(None, "user_version", MIGRATIONS.len() as i64).attempt("number the schema")?;
    if from == 0 {
        populate(conn, id)?;
    }
    sql.commit().attempt("commit the schema")?;
    conn.pragma_update(None, "synchronous", "NORMAL").attempt("set durability")
}

/// The rows that a new state begins with: its identity, its clock, its root.
fn populate(conn: &Connection, id: ReplicaId) -> Result<()> {
    let instance: [u8; 8] = random()?;
    records::put_meta(conn, "state.id", &id.0)?;
    records::put_meta(conn, "state.instance", &instance)?;
    let mut sig = super::encode::Blob::new();
    super::encode::signature(&mut sig, &crate::entry::Signature::default());
    let fill = || {
        conn.execute("INSERT INTO clock (id, seq, counter, reserved, floor, live) VALUES (1, 0, 0, 0, 0, 0)", [])?;
        conn.execute("INSERT INTO replica (ix, id) VALUES (1, ?1)", [id.0])?;
        conn.execute(
            "INSERT INTO node (id, parent, name, bound, digest, seq, born) VALUES (1, 0, x'', x'', ?1, 0, 0)",
            [[0u8; 16]],
        )?;
        conn.execute(
            "INSERT INTO entry (parent, name, kind, node, seq, m, o, sig) VALUES (0, x'', 3, 1, 0, x'', 0, ?1)",
            params![&sig[..]],
        )
    };
    fill().attempt("fill a new state").map(|_| ())
}

fn read_clock(conn: &Connection) -> Result<Clock> {
    conn.query_row("SELECT seq, counter, reserved, floor, live FROM clock", [], |row| {
        Ok(Clock {
            seq: row.get(0)?,
            counter: row.get::<_, i64>(1)? as u64,
            reserved: row.get::<_, i64>(2)? as u64,
            floor: row.get(3)?,
            live: row.get(4)?,
        })
    })
    .attempt("read the clock")
}

fn meta_array<const N: usize>(conn: &Connection, key: &str) -> Result<[u8; N]> {
    let value = records::meta(conn, key)?;
    value.and_then(|value| value.try_into().ok()).ok_or(StateError::Content { what: "an identity" })
}

/// Moves a damaged state and its companions aside; nothing is made in its place.
fn move_aside(file: &Path, reason: String) -> Result<StateError> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs());
    let name = |n: u64| suffixed(file, &format!(".damaged-{}", seconds + n));
    let moved_to = (0..).map(name).find(|target| target.symlink_metadata().is_err()).expect("some name is free");
    for companion in COMPANIONS {
        let from = suffixed(file, companion);
        if from.symlink_metadata().is_ok() {
            std::fs::rename(&from, suffixed(&moved_to, companion)).map_err(io_error("move aside", &from))?;
        }
    }
    std::fs::rename(file, &moved_to).map_err(io_error("move aside", file))?;
    if let Some(dir) = file.parent() {
        sync_dir(dir)?;
    }
    Ok(StateError::Damaged { path: file.to_owned(), moved_to, reason })
}

fn suffixed(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Makes the names in a folder durable.
fn sync_dir(dir: &Path) -> Result<()> {
    let open = std::fs::File::open(dir).map_err(io_error("open", dir))?;
    open.sync_all().map_err(io_error("flush", dir))
}
