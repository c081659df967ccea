//! The SQLite state against the simulator's maps: the same random changes, the same rows, knowledge and listings.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test, which prints the history that fails")]

use fixtures::sim::store::{MASK, MapStore, dir, file};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use sync_core::entry::{Kind, Signature};
use sync_core::io::state::{Batch, State};
use sync_core::knowledge::{Event, Mutation, ReplicaId, Row, Vector};
use sync_core::path::{Name, RelPath};
use sync_core::store::{Change, Child, Filter, Listing, Store as _};

/// Histories a run tries, and changes in each.
const HISTORIES: u64 = 25;
const CHANGES: u64 = 45;
/// Deepest path.
const DEPTH: u64 = 4;

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn path(&mut self, least: u64) -> RelPath {
        let depth = least + self.below(DEPTH + 1 - least);
        let names: Vec<&str> = (0..depth).map(|_| if self.one_in(2) { "a" } else { "b" }).collect();
        RelPath::parse(names.join("/").as_bytes()).unwrap()
    }

    /// What others may have taught: small vectors over three replicas.
    fn vector(&mut self) -> Vector {
        let many = 1 + self.below(2);
        (0..many).map(|_| Event { replica: id(2 + self.below(3) as u8), counter: 1 + self.below(6) }).collect()
    }
}

fn id(n: u8) -> ReplicaId {
    ReplicaId([n; 16])
}

/// Both stores, and what relates them.
struct Pair {
    map: MapStore,
    state: State,
    /// Sequence numbers of both at the same moments.
    moments: Vec<(u64, u64)>,
    /// Trees that the state gave up since they told nothing: the bound above stands for them, which covers theirs.
    loose: BTreeSet<RelPath>,
}

impl Pair {
    fn new() -> Pair {
        let map = MapStore::new(id(1), Mutation::default());
        let state = State::in_memory(id(1), MASK).unwrap();
        let mut pair = Pair { map, state, moments: vec![(0, 0)], loose: BTreeSet::new() };
        let event = pair.state.tick().unwrap();
        pair.apply(Change::Put {
            path: RelPath::parse(b"a").unwrap(),
            row: Row { object: dir(0o755), m: event.into(), c: event.into() },
            signature: Signature::default(),
            learn: None,
        });
        pair
    }

    /// A change that both allow.
    fn change(&self, random: &mut Random) -> Change {
        loop {
            let change = self.guess(random);
            let fits = match &change {
                Change::Raise { path, s: None, gaps: false, bound } => {
                    self.exact(path) || !bound.within(&self.map.bound(&RelPath::root()))
                }
                Change::Raise { path, s: Some(s), gaps: false, .. } => self.exact(path) || !s.within(&self.map.sub(path)),
                _ => true,
            };
            if fits && self.map.clone().commit(vec![change.clone()]).is_ok() {
                return change;
            }
        }
    }

    fn guess(&self, random: &mut Random) -> Change {
        let own = || match self.state.counter() {
            0 => self.state.tick().unwrap(),
            counter => Event { replica: self.state.id(), counter },
        };
        let learn = |random: &mut Random| (!random.one_in(3)).then(|| Arc::new(random.vector()));
        let mut bound = random.vector();
        if random.one_in(2) && self.state.counter() > 0 {
            bound = own().into();
        }
        let bound = Arc::new(bound);
        match random.below(20) {
            0..=6 => {
                let path = random.path(1);
                let mut learn = learn(random);
                let event = match &learn {
                    Some(learn) if random.one_in(2) => learn.iter().next().unwrap(),
                    _ if random.one_in(2) => self.state.tick().unwrap(),
                    _ => own(),
                };
                if random.one_in(4) {
                    learn = Some(Arc::new(learn.as_deref().cloned().unwrap_or_default().joined(&event.into())));
                }
                let object = if random.one_in(3) { file(random.below(4)) } else { dir(0o755) };
                let row = Row { object, m: event.into(), c: event.into() };
                Change::Put { path, row, signature: Signature::default(), learn }
            }
            7..=8 => Change::Remove { path: random.path(1), learn: learn(random), bound },
            9..=10 => Change::RemoveTree { path: random.path(1), learn: learn(random), bound },
            11..=14 => Change::Learn { path: random.path(0), learn: Arc::new(random.vector()), bound },
            15..=18 => Change::Raise { path: random.path(0), s: learn(random), bound, gaps: random.one_in(3) },
            _ => Change::Forget { path: random.path(1) },
        }
    }

    fn exact(&self, path: &RelPath) -> bool {
        !path.ancestors().any(|at| self.loose.contains(&at))
    }

    fn apply(&mut self, change: Change) {
        let id = self.map.id;
        if let Change::Put { row, .. } = &change {
            self.map.n = self.map.n.max(row.m.get(id));
        }
        self.state.commit(Batch { changes: vec![change.clone()], ..Batch::default() }, false).unwrap();
        if let Change::Forget { path } = &change {
            self.loose.retain(|at| !path.contains(at));
        }
        self.map.commit(vec![change]).unwrap();
        if self.map.id != id {
            // Who forgot rows is another replica to all others, who ask for everything.
            assert_ne!(self.state.id(), id);
            self.map.id = self.state.id();
            self.moments.clear();
        }
        self.moments.push((self.map.seq, self.state.seq()));
        assert_eq!(self.state.check().unwrap(), Vec::<String>::new());
    }

    // ---- comparison ----

    fn listings(&self, dir: &RelPath, filters: (&Filter, &Filter)) -> (Listing, Listing) {
        (self.map.listing(dir, filters.0).unwrap(), self.state.listing(dir, filters.1).unwrap())
    }

    fn compare(&mut self, moments: &BTreeSet<usize>) {
        let kept = &self.map.rows;
        self.loose.retain(|at| kept.contains_key(at));
        let dirs: BTreeSet<RelPath> = self.map.rows.keys().flat_map(RelPath::ancestors).collect();
        // Parents first: what is loose is known before what is below.
        for dir in &dirs {
            let (want, have) = self.listings(dir, (&Filter::All, &Filter::All));
            self.compare_all(dir, &want, &have);
            for moment in moments {
                self.compare_since(dir, *moment, self.moments[*moment], &BTreeSet::new());
            }
        }
        let asked: BTreeSet<RelPath> = dirs.iter().step_by(3).cloned().collect();
        for dir in &dirs {
            for moment in [0, self.moments.len() / 2, self.moments.len() - 1] {
                self.compare_since(dir, moment, self.moments[moment], &asked);
            }
        }
    }

    fn compare_all(&mut self, dir: &RelPath, want: &Listing, have: &Listing) {
        assert_eq!((want.full, &want.sub, want.digest), (have.full, &have.sub, have.digest), "{dir}");
        if self.exact(dir) {
            assert_eq!(want.bound, have.bound, "bound of {dir}");
        } else {
            assert!(want.bound.within(&have.bound), "bound of {dir}");
            assert!(have.bound.within(&self.map.bound(&RelPath::root())), "bound of {dir}");
        }
        assert!(have.children.is_sorted_by(|a, b| a.name < b.name));
        self.compare_names(dir, want, have);
        let wanted: BTreeMap<&Name, &Child> = want.children.iter().map(|child| (&child.name, child)).collect();
        let found = names(have);
        self.loose.extend(want.children.iter().filter(|child| !found.contains(&child.name)).map(|child| dir.join(&child.name)));
        for child in &have.children {
            let path = dir.join(&child.name);
            let wanted = wanted[&child.name];
            assert_eq!(wanted.row, child.row, "row of {path}");
            let own = child.own.as_deref().cloned().unwrap_or_default();
            let s = child.tree.as_ref().map(|tree| tree.s.clone()).unwrap_or_default();
            assert_eq!(self.map.own(&path), have.sub.joined(&s).joined(&own), "own of {path}");
            assert_eq!(self.map.sub(&path), have.sub.joined(&s), "sub of {path}");
            match (&wanted.tree, &child.tree) {
                (Some(_), None) => {
                    assert!(child.row.as_ref().is_none_or(|row| row.object.kind() != Kind::Dir));
                    self.loose.insert(path);
                }
                (None, Some(_)) => panic!("a tree of {path} that the maps have not"),
                (Some(a), Some(b)) => {
                    assert_eq!(a.digest, b.digest, "digest of {path}");
                    assert!(a.bound.within(&b.bound) && (a.bound == b.bound || !self.exact(&path)), "bound of {path}");
                }
                (None, None) => {}
            }
        }
    }

    /// The same rows; the maps may have ghosts that tell nothing beside.
    fn compare_names(&self, dir: &RelPath, want: &Listing, have: &Listing) {
        let (wanted, found) = (names(want), names(have));
        assert!(found.is_subset(&wanted), "{dir}: {found:?} beyond {wanted:?}");
        for name in wanted.difference(&found) {
            assert!(self.silent(&dir.join(name)), "{dir}: {name:?} is missing");
        }
    }

    /// Is nothing live at or below a path, and nothing known that is not known of its directory?
    fn silent(&self, path: &RelPath) -> bool {
        let sub = self.map.sub(&path.parent().unwrap());
        let at = std::iter::once((path, &self.map.rows[path])).chain(self.map.below(path));
        let mut told = at.map(|(_, kept)| {
            kept.row.is_none() && kept.own.within(&sub) && kept.tree.as_ref().is_none_or(|(s, _)| s.within(&sub))
        });
        told.all(|silent| silent)
    }

    fn compare_since(&self, dir: &RelPath, moment: usize, after: (u64, u64), also: &BTreeSet<RelPath>) {
        let since = |after| Filter::Since { after, also: Arc::new(also.clone()) };
        let (want, have) = self.listings(dir, (&since(after.0), &since(after.1)));
        if !dir.is_root() && self.child(dir).is_none() {
            // A ghost that told nothing: its directory's listing shows it as absent.
            assert!(self.silent(dir) && have.children.is_empty(), "{dir} since {moment}");
            return;
        }
        assert!(have.full || !want.full, "{dir} since {moment} is not full");
        if have.full {
            // More than asked for is right at any time; it is only told of what has no tree of its own.
            let tree = self.child(dir).is_none_or(|child| child.tree.is_some());
            assert!(want.full || !tree || !self.exact(dir), "{dir} since {moment} is full");
            let all = self.map.listing(dir, &Filter::All).unwrap();
            return self.compare_names(dir, &all, &have);
        }
        let (wanted, found) = (names(&want), names(&have));
        let beyond: Vec<&Name> = found.difference(&wanted).collect();
        assert!(beyond.is_empty(), "{dir} since {moment}: {beyond:?}");
        for name in wanted.difference(&found) {
            let named = also.iter().any(|path| dir.join(name).contains(path));
            assert!(named && self.silent(&dir.join(name)), "{dir} since {moment}: {name:?} is missing");
        }
    }

    /// What the state shows of a path below the root.
    fn child(&self, path: &RelPath) -> Option<Child> {
        let (dir, name) = path.split()?;
        self.state.listing(&dir, &Filter::All).unwrap().children.into_iter().find(|child| child.name == name)
    }
}

fn names(listing: &Listing) -> BTreeSet<Name> {
    listing.children.iter().map(|child| child.name.clone()).collect()
}

#[test]
fn any_history_gives_what_the_maps_give() {
    for seed in 0..HISTORIES {
        let mut random = Random(seed);
        let mut pair = Pair::new();
        let mut done = Vec::new();
        for _ in 1..CHANGES {
            let change = pair.change(&mut random);
            done.push(change.clone());
            let told = Told { seed, done: &done };
            pair.apply(change);
            if random.one_in(10) {
                pair.state.prune().unwrap();
            }
            let now = pair.moments.len();
            let last = done.len() as u64 + 1 == CHANGES;
            pair.compare(&(0..now).filter(|at| last || at + 3 > now || random.one_in(8)).collect());
            drop(told);
        }
    }
}

/// Prints the history that fails.
struct Told<'a> {
    seed: u64,
    done: &'a [Change],
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        eprintln!("seed {}", self.seed);
        for change in self.done {
            eprintln!("  {change:?}");
        }
    }
}
