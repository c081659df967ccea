//! A command that looks at disks which may hang, in a process of its own: one whose thread waits in the kernel for a frozen disk cannot
//! be ended by anybody, itself included, until the disk answers, and whoever called it, or reads what it says, would wait for that.

use crate::exit::Exit;
use crate::home;
use crate::output::Output;
use anyhow::{Context as _, Result, bail};
use std::io::{self, ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Set for the process that does the work. After all that it says comes [`END_MARK`], and its exit code.
const WORKS: &str = "DRIFTLESS_APART";
/// What no line of a result has in it.
const END_MARK: u8 = 0;
/// How long the work may take: all of it has deadlines of its own, which are shorter.
const WORK: Duration = Duration::from_secs(180);
/// How long a process that has said everything may take to end.
const END: Duration = Duration::from_secs(3);

/// Does `work` in another process with the same arguments, and ends with what comes of it, whether that process can end or not.
pub(super) fn apart(output: &Output, work: impl FnOnce() -> Result<Exit>) -> Result<Exit> {
    if !home::is_set(WORKS) {
        return begin(output);
    }
    let exit = work()?;
    output.bytes(&[END_MARK, exit as u8]);
    output.flush();
    Ok(exit)
}

#[allow(clippy::disallowed_methods, reason = "a deadline on the clock of this machine")]
fn begin(output: &Output) -> Result<Exit> {
    let (ours, theirs) = UnixStream::pair().context("cannot begin another process")?;
    let mut child = Command::new("/proc/self/exe")
        .args(std::env::args_os().skip(1))
        .env(WORKS, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::from(OwnedFd::from(theirs)))
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot begin another process")?;
    // Read along, since it would wait for that; and handed on by a thread that is left alone with a process that is.
    let talk = child.stderr.take().map(|mut err| thread::spawn(move || io::copy(&mut err, &mut io::stderr())));
    let until = Instant::now() + WORK;
    let mut code: Vec<u8> = Vec::new();
    let mut over = false;
    while code.is_empty() {
        let left = until.saturating_duration_since(Instant::now());
        let Some(said) = next(&ours, left).context("cannot hear of what was begun")? else {
            bail!("process {} did not end within {} seconds, and is left alone", child.id(), WORK.as_secs());
        };
        let mark = said.iter().position(|byte| over || *byte == END_MARK).unwrap_or(said.len());
        output.bytes(&said[..mark]);
        code.extend(said[mark..].iter().skip(usize::from(!over)));
        over |= mark < said.len();
        if said.is_empty() {
            break;
        }
    }
    let hangs = !code.is_empty() && next(&ours, END).context("cannot hear of what was begun")?.is_none();
    if hangs {
        let id = child.id();
        output.talk(&format!("process {id} of this check waits for a disk that does not answer, and ends when that does"));
        return exit(code[0].into()).context("what was begun ended in no known way");
    }
    let status = child.wait().context("cannot wait for what was begun")?;
    // What it said is told before this process ends; a panic there has nothing to undo.
    let _ = talk.map(thread::JoinHandle::join);
    Ok(status.code().and_then(exit).unwrap_or(Exit::CouldNotRun))
}

/// What comes next; nothing at its end; `None` if that takes too long.
fn next(mut from: &UnixStream, wait: Duration) -> io::Result<Option<Vec<u8>>> {
    if wait.is_zero() {
        return Ok(None);
    }
    from.set_read_timeout(Some(wait))?;
    let mut bytes = vec![0; 64 << 10];
    loop {
        match from.read(&mut bytes) {
            Ok(count) => {
                bytes.truncate(count);
                return Ok(Some(bytes));
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Ok(None),
            // It was killed.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(Some(Vec::new())),
            Err(error) => return Err(error),
        }
    }
}

fn exit(code: i32) -> Option<Exit> {
    let known = [Exit::InSync, Exit::Skipped, Exit::Failed, Exit::CouldNotRun, Exit::Usage, Exit::Interrupted];
    known.into_iter().find(|exit| *exit as i32 == code)
}
