//! Rows and vectors: whatever is accepted keeps the rules of a listing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sync_core::entry::{Content, Kind};
use sync_core::knowledge::Vector;
use sync_core::path::Name;
use sync_core::wire::{Gather, MAX_REPLICAS, MAX_SIZE, Message, Piece};

fuzz_target!(|data: &[u8]| {
    let bytes = [&[13], data].concat();
    let Ok(Message::Listing(piece)) = Message::decode(&bytes) else { return };
    let listing = &piece.listing;
    assert!(listing.seq <= MAX_SIZE);
    assert!(listing.children.is_sorted_by(|a, b| a.name < b.name));
    check(&listing.sub);
    check(&listing.bound);
    for child in &listing.children {
        assert!(Name::parse(child.name.as_bytes()).is_ok());
        child.own.iter().for_each(|own| check(own));
        child.tree.iter().for_each(|tree| {
            check(&tree.s);
            check(&tree.bound);
        });
        let Some(row) = &child.row else { continue };
        check(&row.m);
        assert!(!row.m.is_empty());
        assert!(row.object.attrs.mode <= 0o7777);
        assert!(row.object.kind() != Kind::Dir || child.tree.is_some());
        if let Content::File { size, .. } = row.object.content {
            assert!(size <= MAX_SIZE);
        }
    }
    let mut gather = Gather::default();
    let mut whole = None;
    for piece in Piece::of(piece.listing.clone()) {
        whole = gather.add(piece).expect("pieces of a listing fit together");
    }
    assert!(whole.as_ref() == Some(&piece.listing));
});

fn check(vector: &Vector) {
    assert!(vector.len() <= MAX_REPLICAS);
    let events: Vec<_> = vector.iter().collect();
    assert!(events.is_sorted_by(|a, b| a.replica < b.replica));
    assert!(events.iter().all(|event| (1..=MAX_SIZE).contains(&event.counter)));
}
