//! Both ends within one process: real states in throw-away folders, and an answering thread.

mod answers;
mod hostile;
mod walks;

use super::shelf::Limits;
use super::{Gate, Here, Parked, RemoteThere, respond};
use crate::entry::{AttrMask, Attrs, Content, Hash, Object, Signature};
use crate::io::channel::ChannelError;
use crate::io::fs::Root;
use crate::io::link::{CloseCode, Connection, Identity, Listener, Network, local_pair};
use crate::io::speaker::Speaker;
use crate::io::state::{Batch, State};
use crate::io::there::{Facts, There};
use crate::knowledge::Row;
use crate::path::RelPath;
use crate::peer::PublicKey;
use crate::plan::Step;
use crate::reconcile::End;
use crate::session::{Outcome, Poll, Pull, Terms};
use crate::store::{Change, Filter, Listing};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

const MASK: AttrMask = AttrMask { perms: true, owner: false, times: true };
/// No single step may take longer, on however busy a machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn path(text: &str) -> RelPath {
    RelPath::parse(text.as_bytes()).unwrap()
}

/// A root with its state.
struct Site {
    root: Root,
    state: State,
}

impl Site {
    /// Opens what is there, or begins it.
    fn open(dir: &Path) -> Site {
        std::fs::create_dir_all(dir).unwrap();
        let root = Root::open(dir).unwrap();
        root.private(&[]).unwrap();
        let state = State::open(&dir.join(".driftless"), MASK).unwrap();
        Site { root, state }
    }

    fn here(&self) -> Here<'_> {
        let location = self.root.path().as_os_str().as_encoded_bytes().to_vec();
        let (root, state) = (&self.root, &self.state);
        Here {
            root,
            state,
            granularity_ns: 0,
            passing: false,
            location,
            asker: Speaker::Here,
            stands_for: None,
            gate: None,
            heard: None,
        }
    }

    /// Records paths as new: directories end in a slash.
    fn add<T: AsRef<str>>(&self, paths: impl IntoIterator<Item = T>) {
        let event = self.state.tick().unwrap();
        let changes = paths.into_iter().map(|name| {
            let name = name.as_ref();
            let (content, mode) = match name.ends_with('/') {
                true => (Content::Dir, 0o040_755),
                false => (Content::File { size: 3, hash: Some(Hash([7; 32])) }, 0o100_644),
            };
            let attrs = Attrs { mode: mode & 0o7777, ..Attrs::default() };
            let row = Row { object: Object { content, attrs }, m: event.into(), c: event.into() };
            let signature = Signature { size: 3, mode, ..Signature::default() };
            Change::Put { path: path(name.trim_end_matches('/')), row, signature, learn: None }
        });
        self.state.commit(Batch { changes: changes.collect(), ..Batch::default() }, false).unwrap();
    }
}

/// So many directories of so many files, in groups of fifty, and this one below each.
fn tree(dirs: usize, files: usize) -> Vec<String> {
    let mut paths = Vec::new();
    for dir in 0..dirs {
        if dir % 50 == 0 {
            paths.push(format!("g{:03}/", dir / 50));
        }
        let dir = format!("g{:03}/d{:05}/", dir / 50, dir);
        paths.extend((0..files).map(|file| format!("{dir}{file:04}")));
        paths.insert(paths.len() - files, dir);
    }
    paths
}

fn ends() -> (Arc<Connection>, Connection) {
    let [near, far] = local_pair([PublicKey::from_bytes([1; 32]), PublicKey::from_bytes([2; 32])], [3; 32]);
    (Arc::new(near), far)
}

/// The same over QUIC. The listener has to live as long as they.
fn quic_ends() -> ((Arc<Connection>, Connection), Listener) {
    let [near, far] = [(); 2].map(|()| Network::new(Identity::generate().unwrap()).unwrap());
    let loopback: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
    let listener = far.listen(loopback, [near.identity().id()].into()).unwrap();
    let address = listener.address().to_string().parse().unwrap();
    let dialled = near.dial(far.identity().id(), &[address], PATIENCE).unwrap();
    ((Arc::new(dialled), listener.accept(PATIENCE).unwrap()), listener)
}

/// Ends the connection however a test ends, so that nobody waits for it.
struct Closing(Arc<Connection>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close(CloseCode::Done);
    }
}

/// What each stream of the answering side ended with.
type Ended = Mutex<Vec<Result<(), ChannelError>>>;

/// Runs a test against the root of another machine.
fn serving<T>(here: &Here<'_>, ended: &Ended, test: impl FnOnce(&Arc<Connection>) -> T) -> T {
    serving_over(ends(), here, ended, test)
}

fn serving_over<T>(
    (near, far): (Arc<Connection>, Connection),
    here: &Here<'_>,
    ended: &Ended,
    test: impl FnOnce(&Arc<Connection>) -> T,
) -> T {
    let parked = Parked::default();
    thread::scope(|scope| {
        scope.spawn(|| {
            while let Ok(stream) = far.accept(PATIENCE) {
                scope.spawn(|| {
                    let answered = respond(stream, here, &parked);
                    ended.lock().unwrap().push(answered);
                });
            }
        });
        let _closing = Closing(near.clone());
        test(&near)
    })
}

/// As [`serving`], with the other root as a pull sees it.
fn remotely<T>(here: &Here<'_>, limits: Limits, test: impl FnOnce(&RemoteThere) -> T) -> T {
    serving(here, &Ended::default(), |near| {
        test(&RemoteThere::with_limits(near.clone(), here.facts().unwrap(), here.state.seq(), limits))
    })
}

fn facts(site: &Site) -> Facts {
    site.here().facts().unwrap()
}

/// Bytes that a test has received, once nothing more can come.
fn received(here: &Here<'_>, test: impl FnOnce(&RemoteThere)) -> u64 {
    let near = serving(here, &Ended::default(), |near| {
        test(&RemoteThere::new(near.clone(), here.facts().unwrap(), here.state.seq()));
        near.clone()
    });
    near.traffic().received
}

/// Holds a pull's conversation.
fn converse(terms: &Terms, there: &dyn There, ours: &State) -> (Vec<Step>, Outcome) {
    let mut pull = Pull::new(terms.clone());
    let mut steps = Vec::new();
    loop {
        match pull.poll() {
            Poll::List { of: End::There, path, filter } => pull.supply(there.listing(&path, &filter).unwrap()),
            Poll::List { of: End::Here, path, filter } => pull.supply(ours.listing(&path, &filter).unwrap()),
            Poll::Step(step) => steps.push(step),
            Poll::Done(outcome) => return (steps, outcome),
        }
    }
}

/// All directories by a walk of all rows.
fn walk(there: &dyn There) -> Vec<Listing> {
    fn below(there: &dyn There, dir: &RelPath, all: &mut Vec<Listing>) {
        let listing = there.listing(dir, &Filter::All).unwrap();
        let dirs = listing.children.iter().filter(|child| child.tree.is_some());
        let names: Vec<_> = dirs.map(|child| dir.join(&child.name)).collect();
        all.push(listing);
        names.iter().for_each(|dir| below(there, dir, all));
    }
    let mut all = Vec::new();
    below(there, &RelPath::root(), &mut all);
    all
}
