//! A peer's messages one after the other, and what this side makes of each: rows gathered, paths and decisions collected,
//! content opened, texts shown. No panic, and nothing beyond its limit.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::collections::BTreeSet;
use std::sync::Arc;
use sync_core::delta::{Shape, Signature};
use sync_core::path::RelPath;
use sync_core::wire::{
    Also, Data, Decided, DecidedPath, FetchRequest, Filter, FrameReader, Gather, MAX_AHEAD, MAX_ALSO, MAX_DATA, MAX_DECIDED,
    MAX_FRAME, MAX_LIST, MAX_LOCATION, MAX_RATIO, MAX_ROWS, MAX_RULES, MAX_SIGNATURES, MAX_SIZE, MAX_TOLD, MAX_TOLD_LINKS, MaxDelete, Message, Piece,
    Problem, RulesNow, SmallFiles, Unpacker,
};
use sync_core::{ignore, plan, report};

#[derive(Default)]
struct Held {
    gather: Gather,
    also: BTreeSet<RelPath>,
    decided: Vec<DecidedPath>,
    decided_bytes: usize,
    unpacker: Unpacker,
}

fuzz_target!(|data: &[u8]| {
    let mut reader = FrameReader::new(MAX_FRAME);
    reader.feed(data);
    let mut held = Held::default();
    while let Ok(Some(message)) = reader.next_message() {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        assert!(Message::decode(&bytes).as_ref() == Ok(&message), "what is understood is said again");
        if !held.takes(message) {
            return;
        }
    }
});

impl Held {
    /// False where the conversation would end.
    fn takes(&mut self, message: Message) -> bool {
        match message {
            Message::Listing(piece) => self.piece(piece),
            Message::Also(also) => self.also(also),
            Message::Decided(decided) => self.decided(decided),
            Message::FileData(data) => self.open(&data.data, MAX_DATA),
            Message::SmallFiles(small) => self.small(&small),
            Message::FetchRequest(request) => fetch(&request),
            Message::ListRequest(request) => {
                assert!(request.ahead <= MAX_AHEAD);
                if let Filter::Only(names) = &request.filter {
                    assert!(names.is_sorted_by(|a, b| a < b) && names.len() <= MAX_LIST);
                }
                let _ = request.filter.to_store(&Arc::new(self.also.clone()));
                true
            }
            Message::Open(open) => {
                assert!(open.scope.is_sorted_by(|a, b| a < b));
                assert!(open.run_rules.len() <= MAX_RULES && open.rules.len() <= MAX_RULES);
                assert!(open.introduction.location.len() <= MAX_LOCATION);
                if let MaxDelete::Percent(percent) = open.max_delete {
                    assert!((0.0..=100.0).contains(&percent));
                }
                rules(&open.run_rules) && rules(&open.rules)
            }
            Message::Opened(opened) => rules(&opened.rules),
            Message::Introduced(introduced) => rules(&introduced.rules),
            Message::Finished(finished) => match finished.rules {
                RulesNow::Other(text) => rules(&text),
                RulesNow::Same | RulesNow::Unusable => true,
            },
            Message::Item(item) => {
                assert!(item.bytes <= MAX_SIZE);
                let _ = plan::Item::from(item);
                true
            }
            Message::Gossip(gossip) => {
                assert!(gossip.machines.len() <= MAX_TOLD);
                for account in gossip.machines {
                    assert!(account.links.len() <= MAX_TOLD_LINKS && account.links.is_sorted_by(|a, b| a.to < b.to));
                }
                true
            }
            Message::Scanned(scanned) => problems(scanned.problems),
            Message::Applied(applied) => {
                let _ = plan::Totals::from(applied.totals);
                problems(applied.problems)
            }
            _ => true,
        }
    }

    fn piece(&mut self, piece: Piece) -> bool {
        match self.gather.add(piece) {
            Ok(Some(listing)) => {
                assert!(listing.children.len() <= MAX_ROWS);
                assert!(listing.children.is_sorted_by(|a, b| a.name < b.name));
                assert!(!self.gather.is_inside());
                true
            }
            Ok(None) => true,
            Err(_) => false,
        }
    }

    fn also(&mut self, also: Also) -> bool {
        let fits = also.add_to(&mut self.also).is_ok();
        assert!(!fits || self.also.len() <= MAX_ALSO);
        fits
    }

    fn decided(&mut self, decided: Decided) -> bool {
        let added = decided.add_to(&mut self.decided, &mut self.decided_bytes);
        if added.is_ok() {
            assert!(self.decided.len() <= MAX_DECIDED && self.decided.is_sorted_by(|a, b| a.path < b.path));
        }
        added.is_ok_and(|last| !last)
    }

    fn open(&mut self, data: &Data, most: usize) -> bool {
        let packed = data.len();
        let plain = matches!(data, Data::Plain(_));
        match data.open(most, &mut self.unpacker) {
            Ok(bytes) => {
                assert!(bytes.len() <= most && (plain || bytes.len() <= packed * MAX_RATIO));
                true
            }
            Err(_) => false,
        }
    }

    fn small(&mut self, small: &SmallFiles) -> bool {
        assert!(!small.files.is_empty() && small.size() <= MAX_DATA as u64);
        self.open(&small.data, small.size() as usize)
    }
}

fn fetch(request: &FetchRequest) -> bool {
    let mut signatures = 0;
    for wanted in &request.files {
        assert!(wanted.size <= MAX_SIZE && wanted.offset <= wanted.size && !wanted.m.is_empty());
        let Some(base) = wanted.base else { continue };
        let shape = Shape::of(base.base).expect("only what can be cut is announced");
        assert!(wanted.offset == 0 && shape.announced() == base);
        signatures += shape.signature_bytes();
        assert!(Signature::check(base, &[]).is_err(), "a base has a block at least");
    }
    assert!(signatures <= MAX_SIGNATURES);
    true
}

fn rules(text: &str) -> bool {
    assert!(text.len() <= MAX_RULES);
    ignore::Rules::parse(text).is_ok()
}

fn problems(problems: Vec<Problem>) -> bool {
    let ours: Vec<report::Problem> = problems.into_iter().map(report::Problem::from).collect();
    let _ = Problem::some(&ours);
    true
}
