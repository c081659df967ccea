//! Random histories of changes against a plain map that recomputes everything.

use super::tests::{id, memory, path, sig};
use super::*;
use crate::entry::{Attrs, Content, Digest, Object};
use crate::knowledge::{Creation, Event};
use crate::store::Child;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Clone, Default)]
struct Tree {
    s: Vector,
    bound: Vector,
    touched: usize,
    /// A listing since an earlier time must be full.
    born: usize,
}

#[derive(Debug, Clone, Default)]
struct Line {
    live: Option<(Row, Signature)>,
    own: Vector,
    touched: usize,
    tree: Option<Tree>,
}

/// Rows as a map; one change at a time, everything at once.
#[derive(Debug)]
struct Model {
    lines: BTreeMap<RelPath, Line>,
    me: ReplicaId,
    counter: u64,
    now: usize,
}

impl Model {
    fn new() -> Model {
        let row =
            Row { object: Object { content: Content::Dir, attrs: Attrs::default() }, m: Vector::new(), c: Creation::default() };
        let root = Line { live: Some((row, Signature::default())), tree: Some(Tree::default()), ..Line::default() };
        Model { lines: BTreeMap::from([(RelPath::root(), root)]), me: id(1), counter: 0, now: 0 }
    }

    fn kind(&self, at: &RelPath) -> Option<Kind> {
        self.lines.get(at)?.live.as_ref().map(|(row, _)| row.object.kind())
    }

    fn children<'a>(&'a self, at: &'a RelPath) -> impl Iterator<Item = (&'a RelPath, &'a Line)> {
        self.lines.iter().filter(move |(p, _)| p.parent().as_ref() == Some(at))
    }

    /// The deepest path on the way to `at` with a tree.
    fn near(&self, at: &RelPath) -> RelPath {
        let found = at.ancestors().find(|p| self.lines.get(p).is_some_and(|line| line.tree.is_some()));
        found.unwrap()
    }

    fn sub(&self, at: &RelPath) -> Vector {
        let mut sub: Vector =
            if self.counter == 0 { Vector::new() } else { Event { replica: self.me, counter: self.counter }.into() };
        for p in at.ancestors() {
            if let Some(tree) = self.lines.get(&p).and_then(|line| line.tree.as_ref()) {
                sub.join(&tree.s);
            }
        }
        sub
    }

    fn own(&self, at: &RelPath) -> Vector {
        self.lines.get(at).map_or_else(|| self.sub(at), |line| self.sub(at).joined(&line.own))
    }

    fn digest(&self, at: &RelPath) -> Digest {
        self.children(at).fold(Digest::default(), |sum, (p, line)| match &line.live {
            None => sum,
            Some((row, _)) => sum.plus(Digest::of_child(p.name().unwrap().as_bytes(), &row.object, self.digest(p))),
        })
    }

    fn raise_up(&mut self, at: &RelPath, bound: &Vector) {
        for p in at.ancestors() {
            if let Some(tree) = self.lines.get_mut(&p).and_then(|line| line.tree.as_mut()) {
                tree.bound.join(bound);
            }
        }
    }

    fn touch(&mut self, at: &RelPath) {
        let now = self.now;
        self.lines.get_mut(at).unwrap().touched = now;
        for p in at.ancestors() {
            if let Some(tree) = self.lines.get_mut(&p).and_then(|line| line.tree.as_mut()) {
                tree.touched = now;
            }
        }
    }

    fn ensure_tree(&mut self, at: &RelPath) {
        if self.lines.get(at).is_some_and(|line| line.tree.is_some()) {
            return;
        }
        let parent = at.parent().unwrap();
        self.ensure_tree(&parent);
        let bound = self.lines[&parent].tree.as_ref().unwrap().bound.clone();
        self.lines.entry(at.clone()).or_default().tree = Some(Tree { bound, born: self.now, ..Tree::default() });
        self.touch(at);
    }

    fn tells(&self, at: &RelPath) -> bool {
        let s = self.lines[at].tree.as_ref().map(|tree| tree.s.clone()).unwrap_or_default();
        !s.within(&self.sub(&at.parent().unwrap()))
    }

    fn drop_tree_if_silent(&mut self, at: &RelPath) {
        if self.kind(at) != Some(Kind::Dir) && self.children(at).next().is_none() && !self.tells(at) {
            self.lines.get_mut(at).unwrap().tree = None;
        }
    }

    /// False if the change breaks a rule; nothing changed then.
    fn apply(&mut self, change: &Change) -> bool {
        self.now += 1;
        match change {
            Change::Put { path, row, signature, learn } => self.put(path, row, signature, learn.as_deref()),
            Change::Remove { path, learn, bound } => self.remove(path, learn.as_deref(), bound),
            Change::RemoveTree { path, learn, bound } => self.remove_tree(path, learn.as_deref(), bound),
            Change::Learn { path, learn, bound } => {
                self.learn(path, learn, bound);
                true
            }
            Change::Raise { path, s, bound, gaps } => {
                self.raise(path, s.as_deref(), bound, *gaps);
                true
            }
            Change::Refresh { path, signature, hash, mtime_ns } => {
                self.refresh(path, signature, *hash, *mtime_ns);
                true
            }
            Change::Forget { path } => self.forget(path),
        }
    }

    fn put(&mut self, at: &RelPath, row: &Row, sig: &Signature, learn: Option<&Vector>) -> bool {
        let dir = row.object.kind() == Kind::Dir;
        let parent_live = at.parent().is_none_or(|parent| self.kind(&parent) == Some(Kind::Dir));
        let live_below = self.children(at).any(|(_, line)| line.live.is_some());
        if !parent_live || (!dir && (at.is_root() || live_below)) {
            return false;
        }
        self.counter = self.counter.max(row.m.get(self.me));
        let comes_to_life = self.kind(at).is_none_or(|before| dir && before != Kind::Dir);
        let line = self.lines.entry(at.clone()).or_default();
        line.live = Some((row.clone(), *sig));
        if let Some(learn) = learn {
            line.own.join(learn);
        }
        if dir {
            self.ensure_tree(at);
        } else {
            self.drop_tree_if_silent(at);
        }
        if let Some(parent) = at.parent().filter(|_| comes_to_life) {
            let bound = self.lines[&parent].tree.as_ref().unwrap().bound.clone();
            if let Some(tree) = self.lines.get_mut(at).unwrap().tree.as_mut() {
                tree.bound.join(&bound);
            }
        }
        self.drop_own_if_known(at);
        self.raise_up(at, &row.m);
        self.touch(at);
        true
    }

    fn remove(&mut self, at: &RelPath, learn: Option<&Vector>, bound: &Vector) -> bool {
        let live_below = self.children(at).any(|(_, line)| line.live.is_some());
        if at.is_root() || (self.kind(at) == Some(Kind::Dir) && live_below) {
            return false;
        }
        self.counter = self.counter.max(bound.get(self.me));
        self.ensure_tree(&at.parent().unwrap());
        let line = self.lines.entry(at.clone()).or_default();
        line.live = None;
        if let Some(learn) = learn {
            line.own.join(learn);
        }
        self.drop_tree_if_silent(at);
        self.drop_own_if_known(at);
        self.raise_up(at, bound);
        self.touch(at);
        true
    }

    /// Touches trees only: the row itself did not change.
    fn touch_tree(&mut self, at: &RelPath) {
        let touched = self.lines[at].touched;
        self.touch(at);
        self.lines.get_mut(at).unwrap().touched = touched;
    }

    fn remove_tree(&mut self, at: &RelPath, learn: Option<&Vector>, bound: &Vector) -> bool {
        if at.is_root() {
            return false;
        }
        self.counter = self.counter.max(bound.get(self.me));
        self.ensure_tree(&at.parent().unwrap());
        self.lines.entry(at.clone()).or_default().live = None;
        if let Some(learn) = learn
            && !learn.within(&self.sub(&at.parent().unwrap()))
        {
            self.ensure_tree(at);
            self.lines.get_mut(at).unwrap().tree.as_mut().unwrap().s.join(learn);
        }
        let below: Vec<RelPath> = self.lines.keys().filter(|p| at.contains(p) && *p != at).cloned().collect();
        let known = self.sub(at);
        for p in below.iter().rev() {
            let line = self.lines.get_mut(p).unwrap();
            line.live = None;
            let tells = line.tree.as_ref().is_some_and(|tree| !tree.s.within(&known));
            let tells_own = !line.own.within(&known);
            if !tells && self.children(p).next().is_none() {
                self.lines.get_mut(p).unwrap().tree = None;
            }
            if self.lines[p].tree.is_none() && !tells_own {
                self.lines.remove(p);
                continue;
            }
            if !tells_own {
                self.lines.get_mut(p).unwrap().own = Vector::new();
            }
            self.raise_up(p, bound);
            self.touch(p);
        }
        self.drop_tree_if_silent(at);
        self.drop_own_if_known(at);
        self.raise_up(at, bound);
        self.touch(at);
        true
    }

    /// Drops o where it tells no more than Sub.
    fn drop_own_if_known(&mut self, at: &RelPath) {
        if self.lines[at].own.within(&self.sub(at)) {
            self.lines.get_mut(at).unwrap().own = Vector::new();
        }
    }

    fn learn(&mut self, at: &RelPath, learn: &Vector, bound: &Vector) {
        if learn.within(&self.own(at)) {
            return;
        }
        if let Some(parent) = at.parent() {
            self.ensure_tree(&parent);
        }
        self.lines.entry(at.clone()).or_default().own.join(learn);
        self.raise_up(at, bound);
        self.touch(at);
    }

    fn raise(&mut self, at: &RelPath, s: Option<&Vector>, bound: &Vector, gaps: bool) {
        let new = s.filter(|s| !s.within(&self.sub(at)));
        if new.is_none() && !gaps && bound.within(&self.lines[&self.near(at)].tree.as_ref().unwrap().bound) {
            return;
        }
        self.ensure_tree(at);
        if let Some(s) = new {
            self.lines.get_mut(at).unwrap().tree.as_mut().unwrap().s.join(s);
        }
        self.raise_up(at, bound);
        self.touch_tree(at);
        if gaps {
            self.born(at);
        }
    }

    /// From now on, listings since an earlier time are full.
    fn born(&mut self, at: &RelPath) {
        let now = self.now;
        self.lines.get_mut(at).unwrap().tree.as_mut().unwrap().born = now;
    }

    fn refresh(&mut self, at: &RelPath, sig: &Signature, hash: Option<Hash>, mtime_ns: Option<i64>) {
        let Some((row, old_sig)) = self.lines.get_mut(at).and_then(|line| line.live.as_mut()) else {
            return;
        };
        let old = row.clone();
        let attrs = &mut row.object.attrs;
        if attrs.mode == old_sig.mode & 0o7777 {
            attrs.mode = sig.mode & 0o7777;
        }
        if attrs.uid == old_sig.uid {
            attrs.uid = sig.uid;
        }
        if attrs.gid == old_sig.gid {
            attrs.gid = sig.gid;
        }
        match &mut row.object.content {
            Content::Dir => attrs.mtime_ns = mtime_ns.unwrap_or(attrs.mtime_ns),
            content => {
                if attrs.mtime_ns == old_sig.mtime_ns {
                    attrs.mtime_ns = sig.mtime_ns;
                }
                if let (Content::File { hash: known, .. }, Some(_)) = (content, hash) {
                    *known = hash;
                }
            }
        }
        *old_sig = *sig;
        let heard = row.object.content != old.object.content
            || row.object.attrs.mode != old.object.attrs.mode && row.object.kind() != Kind::Symlink
            || row.object.attrs.mtime_ns != old.object.attrs.mtime_ns;
        if heard {
            self.touch(at);
        }
    }

    fn forget(&mut self, at: &RelPath) -> bool {
        if at.is_root() {
            return false;
        }
        if self.lines.contains_key(at) {
            self.lines.retain(|p, _| !at.contains(p));
            let parent = at.parent().unwrap();
            self.touch_tree(&parent);
            self.born(&parent);
            self.let_go(&parent);
        }
        true
    }

    /// What is known of a directory, and of those above it, is known of their other rows alone.
    fn let_go(&mut self, dir: &RelPath) {
        let above: Vec<(RelPath, Vector, Vector)> = dir.ancestors().map(|p| (p.clone(), self.sub(&p), self.own(&p))).collect();
        for (up, sub, _) in &above {
            let rows: Vec<RelPath> = self.children(up).map(|(p, _)| p.clone()).filter(|p| !p.contains(dir)).collect();
            for p in rows {
                if self.kind(&p).is_some_and(|kind| kind != Kind::Dir) && self.children(&p).next().is_none() {
                    let own = self.own(&p);
                    let line = self.lines.get_mut(&p).unwrap();
                    line.own = own;
                    line.tree.iter_mut().for_each(|tree| tree.s = Vector::new());
                } else {
                    self.ensure_tree(&p);
                    self.lines.get_mut(&p).unwrap().tree.as_mut().unwrap().s.join(sub);
                }
            }
        }
        for (up, _, own) in above {
            let line = self.lines.get_mut(&up).unwrap();
            line.tree.as_mut().unwrap().s = Vector::new();
            if !up.is_root() {
                line.own = own;
            }
        }
    }

    /// Takes the identity that the state has, which is another one once something was forgotten.
    fn follow(&mut self, state: &State) -> bool {
        let renewed = self.me != state.id();
        if renewed {
            self.me = state.id();
            self.counter = 0;
        }
        renewed
    }

    // ---- comparison ----

    fn compare(&self, state: &State, seqs: &[Option<u64>]) {
        let dirs: BTreeSet<RelPath> = self.lines.keys().flat_map(RelPath::ancestors).collect();
        for dir in &dirs {
            let listing = state.listing(dir, &Filter::All).unwrap();
            assert_eq!(*listing.sub, self.sub(dir), "sub of {dir}");
            assert_eq!(listing.digest, self.digest(dir), "digest of {dir}");
            let near = self.near(dir);
            assert_eq!(*listing.bound, self.lines[&near].tree.as_ref().unwrap().bound, "bound of {dir}");
            let want: Vec<(&RelPath, &Line)> = self.children(dir).collect();
            let names: Vec<Name> = want.iter().map(|(p, _)| p.name().unwrap()).collect();
            assert_eq!(listing.children.iter().map(|c| c.name.clone()).collect::<Vec<_>>(), names, "children of {dir}");
            for ((p, line), child) in want.iter().zip(&listing.children) {
                self.compare_child(state, (p, line), child);
            }
            for (time, after) in seqs.iter().enumerate().filter_map(|(time, after)| Some((time, after.as_ref()?))) {
                let filter = Filter::Since { after: *after, also: Arc::default() };
                let listed = state.listing(dir, &filter).unwrap();
                let born = self.lines.get(dir).and_then(|line| line.tree.as_ref()).map_or(0, |tree| tree.born);
                assert!(listed.full || born <= time, "{dir} since {time} is not full");
                let changed =
                    |line: &Line| listed.full || line.touched > time || line.tree.as_ref().is_some_and(|t| t.touched > time);
                let want: Vec<Name> = want.iter().filter(|(_, line)| changed(line)).map(|(p, _)| p.name().unwrap()).collect();
                assert_eq!(listed.children.iter().map(|c| c.name.clone()).collect::<Vec<_>>(), want, "{dir} since {time}");
            }
        }
        let live = self.lines.iter().filter(|(p, line)| !p.is_root() && line.live.is_some()).count();
        assert_eq!(state.live().unwrap(), live as u64);
    }

    fn compare_child(&self, state: &State, (at, line): (&RelPath, &Line), child: &Child) {
        assert_eq!(child.row, line.live.as_ref().map(|(row, _)| row.clone()), "row of {at}");
        let own = child.own.as_deref().cloned().unwrap_or_default();
        assert_eq!(self.sub(at).joined(&own), self.own(at), "own of {at}");
        assert_eq!(child.tree.is_some(), line.tree.is_some(), "tree of {at}");
        let entry = state.entry(at).unwrap();
        assert_eq!(entry.map(|e| e.signature), line.live.as_ref().map(|(_, sig)| *sig), "signature of {at}");
    }
}

/// A change to be made once the state is known: which kind, where, with which numbers.
type Op = (u8, usize, u8, u64, bool);

fn places() -> Vec<RelPath> {
    let mut places = vec![path("")];
    for first in ["a", "b"] {
        places.push(path(first));
        for second in ["a", "b"] {
            places.push(path(&format!("{first}/{second}")));
            for third in ["x", "y"] {
                places.push(path(&format!("{first}/{second}/{third}")));
            }
        }
    }
    places
}

fn change(state: &State, (kind, place, who, n, more): Op) -> Change {
    let path = places()[place % places().len()].clone();
    let event = match who {
        1 => state.tick().unwrap(),
        who => Event { replica: id(who), counter: n },
    };
    let known = || Some(Arc::new(Vector::from(event))).filter(|_| who != 1 || more);
    let bound: Arc<Vector> = Arc::new(event.into());
    match kind {
        0..=3 => {
            let content = match kind {
                0 | 1 => Content::Dir,
                2 => Content::File { size: n, hash: more.then_some(Hash([n as u8; 32])) },
                _ => Content::Symlink(n.to_le_bytes().into()),
            };
            let mut attrs = sig(n).attrs();
            if more {
                attrs.mtime_ns += 1;
            }
            let row = Row { object: Object { content, attrs }, m: event.into(), c: event.into() };
            Change::Put { path, row, signature: sig(n), learn: known() }
        }
        4 => Change::Remove { path, learn: known(), bound },
        5 => Change::RemoveTree { path, learn: known(), bound },
        6 => Change::Learn { path, learn: Arc::new(Event { replica: id(2 + who % 2), counter: n }.into()), bound },
        7 => {
            let event = Event { replica: id(2 + who % 2), counter: n };
            Change::Raise { path, s: more.then(|| Arc::new(event.into())), bound: Arc::new(event.into()), gaps: n == 5 }
        }
        8 => Change::Refresh { path, signature: sig(n), hash: more.then_some(Hash([9; 32])), mtime_ns: more.then_some(n as i64) },
        _ => Change::Forget { path },
    }
}

fn ops(max: usize) -> impl Strategy<Value = Vec<Op>> {
    let op = (0u8..=9, 0usize..15, 1u8..=3, 1u64..6, any::<bool>());
    // Directories first, so that most of what follows finds its parent.
    let base = Just(vec![(0, 1, 1, 1, false), (0, 2, 1, 1, false), (0, 8, 1, 1, false)]);
    (base, prop::collection::vec(op, 1..max)).prop_map(|(base, ops)| base.into_iter().chain(ops).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_history_gives_what_a_plain_map_gives(ops in ops(30)) {
        let (state, mut model) = (memory(), Model::new());
        // Sequence numbers by time; those from before a new identity mean nothing any more.
        let mut seqs = vec![Some(0)];
        for op in ops {
            let change = change(&state, op);
            let allowed = model.apply(&change);
            let result = state.commit(Batch { changes: vec![change.clone()], ..Batch::default() }, false);
            prop_assert_eq!(result.is_ok(), allowed, "{:?}: {:?}", change, result);
            if model.follow(&state) {
                seqs.fill(None);
            }
            seqs.push(Some(state.seq()));
            prop_assert_eq!(state.check().unwrap(), Vec::<String>::new(), "after {:?}", change);
        }
        model.compare(&state, &seqs);
    }

    #[test]
    fn one_transaction_gives_the_same_rows_as_many(ops in ops(60), size in 1usize..20) {
        let (state, mut model) = (memory(), Model::new());
        let mut batch = Vec::new();
        for (n, op) in ops.iter().enumerate() {
            let change = change(&state, *op);
            let forgets = matches!(change, Change::Forget { .. });
            if model.apply(&change) {
                batch.push(change);
            }
            if forgets || n % size == 0 || n + 1 == ops.len() {
                let changes = std::mem::take(&mut batch);
                state.commit(Batch { changes, ..Batch::default() }, false).unwrap();
                model.follow(&state);
                prop_assert_eq!(state.check().unwrap(), Vec::<String>::new());
            }
        }
        model.compare(&state, &[]);
        state.prune_to(0).unwrap();
        prop_assert_eq!(state.check().unwrap(), Vec::<String>::new());
        for at in places() {
            let live = model.lines.get(&at).and_then(|line| line.live.clone());
            let entry = state.entry(&at).unwrap();
            prop_assert_eq!(entry.map(|e| (e.row, e.signature)), live);
            let own = state.listing(&at, &Filter::All).unwrap().sub;
            prop_assert_eq!(&*own, &model.sub(&at), "what is known of {}", at);
        }
    }
}
