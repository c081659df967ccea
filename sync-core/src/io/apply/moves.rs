//! Recognises that content to be created here stands here already, at a path that goes.

use crate::entry::{AttrMask, Content, Digest, Hash, Kind, Object, Signature};
use crate::io::state::Known;
use crate::knowledge::{Row, Vector};
use crate::path::RelPath;
use crate::plan::{Action, Item, Step};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Paths remembered as possible origins of a move. What goes beyond is copied, not moved.
pub const OFFERS: usize = 200_000;

/// Offers of equal content among which one of the same name is looked for.
const SAME_NAME_SEARCH: usize = 64;

/// What goes at this root and may turn up again under another path: filled from the removals of a plan before
/// it is applied.
#[derive(Debug, Default)]
pub struct Moves {
    files: HashMap<Hash, Vec<Offer>>,
    trees: HashMap<Digest, Vec<Offer>>,
    wanted_files: HashSet<Hash>,
    wanted_trees: HashSet<Digest>,
    paired: bool,
    origins: HashMap<RelPath, Origin>,
    remembered: usize,
}

/// A path that goes, with what its removal has to record.
#[derive(Debug, Clone)]
pub(super) struct Offer {
    pub(super) path: RelPath,
    pub(super) expect: Row,
    pub(super) learn: Arc<Vector>,
    pub(super) bound: Arc<Vector>,
}

/// Where an offered object is by now.
#[derive(Debug)]
pub(super) enum Origin {
    /// At its path.
    InPlace,
    /// Its removal came first: among the kept versions.
    Kept(Kept),
    /// At its new path; its rows went with it.
    Taken,
}

/// An offered object that was removed before anybody asked for it.
#[derive(Debug)]
pub(super) struct Kept {
    /// Name among the kept versions.
    pub(super) name: Vec<u8>,
    /// Its signature when it went.
    pub(super) signature: Signature,
    /// What was in it, for a directory.
    pub(super) contents: Option<Contents>,
    /// The deletion, not told yet because a move is expected; `None` once it was told.
    pub(super) withheld: Option<Item>,
}

/// What stands below a directory, by path relative to it, ascending.
pub(super) type Contents = Vec<(RelPath, Known)>;

impl Moves {
    /// An index without offers.
    #[must_use]
    pub fn new() -> Moves {
        Moves::default()
    }

    /// Offers what a step removes: a file whose hash is known. Anything else is no offer.
    pub fn offer_file(&mut self, step: &Step) {
        let Action::Remove { expect, learn, bound, event: false } = &step.action else { return };
        let Content::File { size: 1.., hash: Some(hash) } = expect.object.content else { return };
        if let Some(offer) = self.take_up(step, expect, learn, bound) {
            self.files.entry(hash).or_default().push(offer);
        }
    }

    /// Offers the directory that a step removes whole; `digest` is its D here.
    pub fn offer_tree(&mut self, step: &Step, digest: Digest) {
        let Action::RemoveTree { expect, learn, bound } = &step.action else { return };
        if digest == Digest::default() {
            return;
        }
        if let Some(offer) = self.take_up(step, expect, learn, bound) {
            self.trees.entry(digest).or_default().push(offer);
        }
    }

    /// Announces that a file with this content will be created.
    pub fn want_file(&mut self, hash: Hash) {
        if self.wanted_files.len() < OFFERS {
            self.wanted_files.insert(hash);
        }
    }

    /// Announces that a directory with this digest will be created.
    pub fn want_tree(&mut self, digest: Digest) {
        if self.wanted_trees.len() < OFFERS {
            self.wanted_trees.insert(digest);
        }
    }

    /// Forgets the offers that nobody wants; to be called once, when all offers and wants are in. Without it all
    /// offers stay, and a removal that turns out to be half of a move was told as a deletion before.
    pub fn pair(&mut self) {
        self.files.retain(|hash, _| self.wanted_files.contains(hash));
        self.trees.retain(|digest, _| self.wanted_trees.contains(digest));
        let offers = self.files.values().chain(self.trees.values()).flatten();
        self.origins = offers.map(|offer| (offer.path.clone(), Origin::InPlace)).collect();
        self.wanted_files = HashSet::new();
        self.wanted_trees = HashSet::new();
        self.paired = true;
    }

    /// Number of offers, and of moves that they may become.
    #[must_use]
    pub fn len(&self) -> usize {
        self.origins.len()
    }

    /// Is nothing offered?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.origins.is_empty()
    }

    fn take_up(&mut self, step: &Step, expect: &Row, learn: &Arc<Vector>, bound: &Arc<Vector>) -> Option<Offer> {
        if self.origins.len() >= OFFERS {
            return None;
        }
        self.origins.insert(step.path.clone(), Origin::InPlace);
        Some(Offer { path: step.path.clone(), expect: expect.clone(), learn: learn.clone(), bound: bound.clone() })
    }

    /// Are directories offered at all?
    pub(super) fn has_trees(&self) -> bool {
        !self.trees.is_empty()
    }

    /// An origin for a file with this content; one of the same name if there is one.
    pub(super) fn claim_file(&mut self, hash: &Hash, for_path: &RelPath) -> Option<Offer> {
        claim(&mut self.files, hash, for_path)
    }

    /// An origin for a directory with this digest.
    pub(super) fn claim_tree(&mut self, digest: &Digest, for_path: &RelPath) -> Option<Offer> {
        claim(&mut self.trees, digest, for_path)
    }

    /// Where an offered path's object is; `None` if the path was not offered.
    pub(super) fn origin(&self, path: &RelPath) -> Option<&Origin> {
        self.origins.get(path)
    }

    /// Is a deletion of this path better told later, since a move is expected of it?
    pub(super) fn withholds(&self, path: &RelPath) -> bool {
        self.paired && self.origins.contains_key(path)
    }

    /// Room for what stands in one more directory that is removed before it is asked for.
    pub(super) fn has_room(&self, entries: usize) -> bool {
        self.remembered + entries <= OFFERS
    }

    /// The path's removal was carried out, and its object is among the kept versions.
    pub(super) fn keep(&mut self, path: &RelPath, kept: Kept) {
        self.remembered += kept.contents.as_ref().map_or(0, Vec::len);
        self.origins.insert(path.clone(), Origin::Kept(kept));
    }

    /// The object is at its new path. Returns what was withheld or remembered of its removal.
    pub(super) fn taken(&mut self, path: &RelPath) -> Option<Kept> {
        match self.origins.insert(path.clone(), Origin::Taken) {
            Some(Origin::Kept(kept)) => {
                self.remembered -= kept.contents.as_ref().map_or(0, Vec::len);
                Some(kept)
            }
            _ => None,
        }
    }

    /// Deletions that were withheld and did not become moves, by path.
    pub(super) fn withheld(&mut self) -> Vec<Item> {
        let kept = self.origins.drain().filter_map(|(_, origin)| match origin {
            Origin::Kept(kept) => kept.withheld,
            _ => None,
        });
        let mut items: Vec<Item> = kept.collect();
        items.sort_by(|a, b| a.path.cmp(&b.path));
        items
    }
}

fn claim<K: std::hash::Hash + Eq>(offers: &mut HashMap<K, Vec<Offer>>, key: &K, for_path: &RelPath) -> Option<Offer> {
    let equal = offers.get_mut(key)?;
    let name = for_path.name();
    let mut near = equal.iter().take(SAME_NAME_SEARCH);
    let at = near.position(|offer| offer.path.name() == name).unwrap_or(0);
    let offer = equal.swap_remove(at);
    if equal.is_empty() {
        offers.remove(key);
    }
    Some(offer)
}

/// Do the rows of a directory here hold exactly what is to stand below its new path? Equal digests say so; this
/// checks that they had a hash to speak of.
pub(super) fn holds(contents: &Contents, wanted: &[(RelPath, &Object)], mask: AttrMask) -> bool {
    contents.len() == wanted.len()
        && contents.iter().zip(wanted).all(|((here, known), (there, object))| {
            here == there
                && known.kind == object.kind()
                && mask.equal(known.kind, &known.signature.attrs(), &object.attrs)
                && match object.content {
                    Content::File { hash, .. } => hash.is_some() && hash == known.hash,
                    Content::Dir | Content::Symlink(_) => known.kind != Kind::File,
                }
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Attrs;
    use crate::knowledge::{Creation, Event, ReplicaId};

    fn removal(path: &str, hash: u8) -> Step {
        let event = Event { replica: ReplicaId([1; 16]), counter: 1 };
        let object = Object { content: Content::File { size: 1, hash: Some(Hash([hash; 32])) }, attrs: Attrs::default() };
        let expect = Row { object, m: event.into(), c: Creation::from(event) };
        let (learn, bound) = (Arc::default(), Arc::default());
        let path = RelPath::parse(path.as_bytes()).unwrap();
        Step { ticket: 0, path, action: Action::Remove { expect, learn, bound, event: false } }
    }

    #[test]
    fn an_origin_of_the_same_name_is_preferred_and_serves_once() {
        let mut moves = Moves::new();
        moves.offer_file(&removal("a/x", 7));
        moves.offer_file(&removal("a/y", 7));
        let new = RelPath::parse(b"b/y").unwrap();
        let hash = Hash([7; 32]);
        assert_eq!(moves.claim_file(&hash, &new).unwrap().path.as_bytes(), b"a/y");
        assert_eq!(moves.claim_file(&hash, &new).unwrap().path.as_bytes(), b"a/x");
        assert!(moves.claim_file(&hash, &new).is_none());
    }

    #[test]
    fn pairing_forgets_what_nobody_wants() {
        let mut moves = Moves::new();
        moves.offer_file(&removal("a", 1));
        moves.offer_file(&removal("b", 2));
        moves.want_file(Hash([2; 32]));
        moves.pair();
        assert_eq!(moves.len(), 1);
        assert!(moves.withholds(&RelPath::parse(b"b").unwrap()));
        assert!(!moves.withholds(&RelPath::parse(b"a").unwrap()));
    }
}
