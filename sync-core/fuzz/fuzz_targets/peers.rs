//! The file of known peers, and what people type of machines: no panic, what is read is written again, and no limit is passed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sync_core::peer::{Address, Book, Id, NAME_BYTES, Name, PEERS, PublicKey};

fuzz_target!(|data: &[u8]| {
    let _ = PublicKey::decode_spki(data);
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(name) = text.parse::<Name>() {
        assert!(name.as_str() == text && text.len() <= NAME_BYTES);
    }
    if let Some(name) = Name::near(text) {
        assert!(name.as_str().parse::<Name>().as_ref() == Ok(&name));
        assert!(name.numbered(1_000).as_str().len() <= NAME_BYTES);
    }
    if let Ok(id) = text.parse::<Id>() {
        assert!(id.to_string().parse::<Id>() == Ok(id));
    }
    if let Ok(address) = text.parse::<Address>() {
        assert!(address.to_string().parse::<Address>().as_ref() == Ok(&address));
    }
    let Ok(book) = Book::parse(text) else { return };
    assert!(book.peers().len() <= PEERS);
    let again = Book::parse(&book.render()).expect("what was read can be read again");
    assert!(again.peers() == book.peers());
    let Some(name) = book.peers().keys().next().cloned() else { return };
    let mut changed = again;
    let removed = changed.remove(&name).expect("it was there");
    changed.add(name, removed).expect("its place is free");
    let again = Book::parse(&changed.render()).expect("what was changed can be read again");
    assert!(again.peers() == book.peers());
});
