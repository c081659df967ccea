//! Changes of what stays where it is: attributes, carried times, rows alone.

use super::Stop;
use super::check::{self, changed};
use super::job::Attributes;
use super::ledger;
use super::prepare::Prepared;
use super::swap::{Swapper, set_signature};
use crate::entry::{AttrMask, Kind};
use crate::io::kill::kill_point;
use crate::io::stage::{Failure, Finish};
use crate::io::state::Intent;
use crate::knowledge::Row;
use crate::path::RelPath;
use crate::plan::{Action, Step, Why};
use crate::store::Change;
use std::sync::Arc;

impl Swapper<'_> {
    pub(super) fn set_attributes(&mut self, change: &Attributes, plan: Prepared) -> Result<(), Stop> {
        let (dir, name) = self.parent(&change.path)?;
        let Some(recorded) = plan.intent.expect else {
            return Err(changed("set attributes"));
        };
        if let Some(placement) = self.placed_at(&change.path)? {
            // What changes lies elsewhere, although the directory above does not.
            self.areas.use_cold(placement.cold.id);
        }
        let live = self.rows.current(&change.path)?;
        check::on_disk(&dir, name.as_bytes(), &recorded, live.as_ref(), "set attributes")?;
        kill_point("attributes-before");
        let mut mask = self.context.mask;
        let is_dir = change.object.kind() == Kind::Dir;
        mask.times &= !is_dir && recorded.mtime_ns != change.attrs.mtime_ns;
        dir.set_attrs(name.as_bytes(), &change.attrs, mask)?;
        kill_point("attributes-after");
        let gone = || Failure::new("set attributes", "it vanished meanwhile");
        let mut now = dir.stat(name.as_bytes())?.ok_or_else(gone)?;
        if now.ino != recorded.ino || (!is_dir && now.size != recorded.size) {
            return Err(changed("set attributes"));
        }
        // A write of equal size since the last look: where the time was not set, it moved the time. Where it was set, the
        // write shows in no signature. Either way the row's hash may be of other bytes: the next scan reads them again.
        now.racy = recorded.racy || (!is_dir && (mask.times || now.mtime_ns != recorded.mtime_ns));
        let Intent { mut changes, path, .. } = plan.intent;
        set_signature(&mut changes, &path, now);
        self.did(changes, None);
        self.ledger.done(change.item.as_ref());
        Ok(())
    }

    pub(super) fn finish_dir(&mut self, path: &RelPath, finish: Finish) -> Result<(), Stop> {
        let Some(live) = self.rows.current(path)? else { return Ok(()) };
        let dir = self.open(path)?;
        let now = dir.stat_self()?;
        let mut attrs = live.row.object.attrs;
        attrs.mtime_ns = finish.mtime_ns;
        // A directory that was filled over several batches still has its owner's rights added.
        let filling = now.mode & 0o7777 != attrs.mode && now.mode & 0o7777 == attrs.mode | 0o700;
        let ours = now.ino == live.signature.ino
            && (now.mode, now.uid, now.gid) == (live.signature.mode, live.signature.uid, live.signature.gid);
        if !ours || live.row.object.kind() != Kind::Dir {
            return Ok(());
        }
        let mask = AttrMask { perms: filling, owner: false, times: self.context.mask.times };
        if let Err(error) = dir.set_attrs_self(&attrs, mask) {
            // No part of any version: told, but the directory is complete without.
            self.ledger.problem(path, "set the time", error.to_string());
            return Ok(());
        }
        kill_point("finish-dir-after");
        let signature = dir.stat_self()?;
        let mtime_ns = self.context.mask.times.then_some(finish.mtime_ns);
        let path = path.clone();
        self.did(vec![Change::Refresh { path, signature, hash: None, mtime_ns }], None);
        Ok(())
    }

    pub(super) fn rows_only(&mut self, step: &Step) -> Result<(), Stop> {
        let path = step.path.clone();
        match &step.action {
            Action::Learn { learn, bound } => {
                self.did(vec![Change::Learn { path, learn: learn.clone(), bound: bound.clone() }], None);
            }
            Action::StayAbsent { learn } => {
                check::expected(self.rows.current(&path)?.as_ref(), None, "record")?;
                let bound = Arc::new(self.event()?.into());
                self.did(vec![Change::Remove { path, learn: Some(learn.clone()), bound }], None);
            }
            Action::Raise { first, until, s, bound, gaps } => {
                if self.ledger.is_whole(*first..*until) {
                    let (s, bound, gaps) = (s.clone(), bound.clone(), *gaps);
                    self.raise(Change::Raise { path, s, bound, gaps });
                }
            }
            Action::Restamp { expect, stamp, learn, why, .. } => {
                // The loser's copy is the step right before. Without it the loser must not be superseded.
                let copied = self.ledger.is_whole(step.ticket.saturating_sub(1)..step.ticket);
                if matches!(why, Why::ConflictWon | Why::StillNeeded) && !copied {
                    return Err(Failure::new("record", "the conflict copy of the other version could not be made").into());
                }
                let live = self.rows.current(&path)?;
                check::expected(live.as_ref(), Some(expect), "record")?;
                let Some(live) = live else { return Err(changed("record")) };
                let (m, c) = self.stamped(stamp)?;
                let row = Row { object: live.row.object, m, c };
                let (signature, learn) = (live.signature, Some(learn.clone()));
                self.did(vec![Change::Put { path, row, signature, learn }], None);
                self.ledger.done(step.item().as_ref());
            }
            Action::Leave { why, .. } => return Err(Stop::Left(Failure::new("leave", ledger::left(*why)))),
            _ => return Err(Failure::new("apply", "the step cannot be carried out").into()),
        }
        Ok(())
    }
}
