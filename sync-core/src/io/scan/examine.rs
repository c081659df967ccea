//! A closer look at what differs in a directory: content is read where only it can tell.

use super::ScanError;
use super::compare::{self, Found};
use super::mounts;
use super::queue::{Enter, Was};
use super::read::{READ_BYTES, Unread, read_verified};
use super::record::{Finding, Old};
use super::walk::{LOOK, Place, Walker};
use crate::entry::{Content, Hash, Kind, Object, Signature};
use crate::io::fs::coarse_now_ns;
use crate::io::state::{Known, NodeId};
use crate::path::{Name, RelPath};

/// Step of a problem with a file's content or a link's target.
const READ: &str = "read";

impl Walker<'_> {
    /// Looks closely at what differs, and tells the writer. Directories to be entered go to `entries`.
    pub(super) fn examine(&mut self, place: &Place<'_>, found: Found<'_>, entries: &mut Vec<Enter>) -> Result<(), ScanError> {
        match found {
            Found::Dir(name, row) => {
                if let Some(enter) = self.enter(place, name, row)? {
                    entries.push(enter);
                }
                Ok(())
            }
            Found::New(name, signature) => self.new_leaf(place, name, signature),
            Found::OtherKind(row, signature) => self.other_kind(place, &row, signature),
            Found::Changed(row, signature) if row.kind == Kind::File => self.changed_file(place, &row, signature),
            Found::Changed(row, signature) => self.changed_link(place, &row, signature),
            Found::Gone(row) => {
                self.old(&row)?;
                self.push(Finding::Gone { path: place.path.join(&row.name), tree: row.node })
            }
            Found::Failed(name, error) => {
                let path = Name::parse(name).map_or_else(|_| place.path.clone(), |name| place.path.join(&name));
                self.shared.unknown(&path, LOOK, error);
                // It may be a directory.
                self.left_out(&path);
                Ok(())
            }
        }
    }

    fn enter(&self, place: &Place<'_>, name: &[u8], row: Option<Known>) -> Result<Option<Enter>, ScanError> {
        let Some(name) = self.name(place, name) else {
            return Ok(None);
        };
        let was = match row {
            None => Was::Absent,
            Some(Known { node: Some(node), signature, .. }) => Was::Dir(Box::new(signature), node),
            Some(row) => Was::Leaf(self.creation(&place.path.join(&row.name))?),
        };
        let only = place.only.and_then(|only| only.get(name.as_bytes()).cloned().flatten());
        Ok(Some(Enter { name, was, only }))
    }

    fn new_leaf(&mut self, place: &Place<'_>, name: &[u8], signature: Signature) -> Result<(), ScanError> {
        let Some(name) = self.name(place, name) else {
            return Ok(());
        };
        let Some((object, signature)) = self.object(place, &name, signature) else {
            return Ok(());
        };
        let path = place.path.join(&name);
        if self.is_forgotten(&path, &object.content, None)? {
            return Ok(());
        }
        self.push(Finding::put(path, object, signature, None))
    }

    /// A link that may stand for a directory in a cold root is told, and not recorded: nobody else is to get it for a directory.
    fn is_forgotten(&self, path: &RelPath, content: &Content, tree: Option<NodeId>) -> Result<bool, ScanError> {
        let Content::Symlink(text) = content else { return Ok(false) };
        let forgotten = self.shared.mounts.is_forgotten(path, text, tree)?;
        if forgotten {
            self.problem(path, LOOK, mounts::UNKNOWN);
            self.shared.mounts.miss(path);
        }
        Ok(forgotten)
    }

    fn other_kind(&mut self, place: &Place<'_>, row: &Known, signature: Signature) -> Result<(), ScanError> {
        let Some((object, signature)) = self.object(place, &row.name, signature) else {
            return Ok(());
        };
        let path = place.path.join(&row.name);
        if self.is_forgotten(&path, &object.content, row.node)? {
            return Ok(());
        }
        self.old(row)?;
        let creation = self.creation(&path)?;
        match row.node {
            Some(tree) => self.push(Finding::Supplant { path, tree, object, signature, creation }),
            None => self.push(Finding::put(path, object, signature, creation)),
        }
    }

    /// The object that a leaf is; a file's content is not read.
    fn object(&self, place: &Place<'_>, name: &Name, signature: Signature) -> Option<(Object, Signature)> {
        let attrs = signature.attrs();
        if compare::kind_of(signature.mode) == Some(Kind::Symlink) {
            let (target, signature) = self.target(place, name, signature)?;
            return Some((Object { content: Content::Symlink(target), attrs }, signature));
        }
        Some((Object { content: Content::File { size: signature.size, hash: None }, attrs }, signature))
    }

    /// Same kind, but the signature cannot vouch for the content.
    fn changed_file(&mut self, place: &Place<'_>, row: &Known, now: Signature) -> Result<(), ScanError> {
        let replaced = row.signature.ino != now.ino;
        let unread = row.hash.is_none() && !compare::same_signature(&row.signature, &now);
        if now.size != row.signature.size || (unread && now.size > 0) {
            if replaced {
                self.old(row)?;
            }
            return self.edited(place, row, now, Content::File { size: now.size, hash: None });
        }
        let Some((now, hash)) = self.read(place, &row.name)? else {
            return Ok(());
        };
        let same_bytes = row.hash.map_or(now.size == row.signature.size, |recorded| recorded == hash);
        if same_bytes && self.scan.mask.equal(Kind::File, &row.signature.attrs(), &now.attrs()) {
            let path = place.path.join(&row.name);
            return self.push(Finding::Refresh { path, signature: now, hash: Some(hash), mtime_ns: None });
        }
        if replaced && !same_bytes {
            self.old(row)?;
        }
        self.edited(place, row, now, Content::File { size: now.size, hash: Some(hash) })
    }

    fn changed_link(&mut self, place: &Place<'_>, row: &Known, now: Signature) -> Result<(), ScanError> {
        let Some((target, now)) = self.target(place, &row.name, now) else {
            return Ok(());
        };
        let path = place.path.join(&row.name);
        let content = Content::Symlink(target);
        let recorded = self.scan.state.entry(&path)?;
        if recorded.is_some_and(|recorded| recorded.row.object.content == content)
            && self.scan.mask.equal(Kind::Symlink, &row.signature.attrs(), &now.attrs())
        {
            return self.push(Finding::Refresh { path, signature: now, hash: None, mtime_ns: None });
        }
        if self.is_forgotten(&path, &content, None)? {
            return Ok(());
        }
        self.edited(place, row, now, content)
    }

    fn edited(&mut self, place: &Place<'_>, row: &Known, signature: Signature, content: Content) -> Result<(), ScanError> {
        let path = place.path.join(&row.name);
        let creation = self.creation(&path)?;
        let object = Object { content, attrs: signature.attrs() };
        self.push(Finding::put(path, object, signature, creation))
    }

    fn read(&mut self, place: &Place<'_>, name: &Name) -> Result<Option<(Signature, Hash)>, ScanError> {
        if self.buffer.is_empty() {
            self.buffer = vec![0; READ_BYTES];
        }
        match read_verified(place.dir, name.as_bytes(), None, &mut self.buffer, self.shared.clock, self.scan.monitor) {
            Ok(read) => Ok(Some(read)),
            Err(Unread::Stopped) => Err(ScanError::Cancelled),
            Err(error) => {
                self.problem(&place.path.join(name), READ, error);
                Ok(None)
            }
        }
    }

    /// A link's target, and its signature with the racy flag.
    fn target(&self, place: &Place<'_>, name: &Name, signature: Signature) -> Option<(Box<[u8]>, Signature)> {
        let start = coarse_now_ns();
        match place.dir.read_link(name.as_bytes()) {
            Ok(target) => Some((target, self.shared.clock.judged(signature, start))),
            Err(error) => {
                self.problem(&place.path.join(name), READ, error);
                None
            }
        }
    }

    /// Content that may have gone elsewhere by a rename.
    fn old(&mut self, row: &Known) -> Result<(), ScanError> {
        match (row.kind, row.hash) {
            (Kind::File, Some(hash)) => self.push(Finding::Old(Old { signature: row.signature, hash })),
            _ => Ok(()),
        }
    }

    fn name(&self, place: &Place<'_>, name: &[u8]) -> Option<Name> {
        Name::parse(name).map_err(|error| self.problem(place.path, LOOK, error)).ok()
    }
}
