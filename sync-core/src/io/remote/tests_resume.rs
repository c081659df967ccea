//! Large files whose connection is lost in the middle.

use super::fetch::{LANES, RemoteSource};
use super::lanes::{Lanes, Parked};
use super::tests_content::{World, ends, fetched, noise, respond, take, with_source};
use crate::entry::{AttrMask, Content};
use crate::io::apply::{Applied, Apply, ApplyError, Context, Moves, recover};
use crate::io::channel::Channel;
use crate::io::link::{CloseCode, Connection};
use crate::io::source::{Source as _, SourceError, Wanted};
use crate::io::stage::UnderWay;
use crate::path::RelPath;
use crate::plan::{Action, Displaced, Stamp, Step};
use crate::report::Silent;
use crate::wire::{Data, Encoding, FileBegin, FileData, FileEnd, Lane, MAX_DATA, Message, Packing};
use std::fs;
use std::io::{Seek as _, Write as _};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

const MASK: AttrMask = AttrMask { perms: true, owner: false, times: true };
const SIZE: usize = 6 << 20;
const LONG: Duration = Duration::from_secs(30);

#[test]
fn a_file_goes_on_behind_what_is_held_and_begins_anew_where_that_is_wrong() {
    let large = noise(1, SIZE);
    let world = World::new(&[("f", &large), ("g", b"next")]);
    let wrong = [&noise(2, 10)[..], &large[10..5 << 20]].concat();
    for (held, whole) in [(&large[..5 << 20], false), (&large[..], false), (&large[..1], false), (&wrong[..], true)] {
        let (near, far) = ends();
        thread::scope(|scope| {
            scope.spawn(|| respond(&world, &far));
            let source = RemoteSource::new(near.clone()).unwrap().with_packing(Packing::Off);
            let wanted = Wanted { held: held.len() as u64, ..world.wanted("f") };
            let mut feed = source.feed(&world.root, vec![wanted, world.wanted("g")]);
            let mut target = tempfile::tempfile().unwrap();
            target.write_all(held).unwrap();
            target.rewind().unwrap();
            assert_eq!(feed.fetch(0, &mut target).unwrap(), fetched(&large));
            assert_eq!(target.metadata().unwrap().len(), SIZE as u64);
            assert_eq!(take(&mut *feed, 1).0.unwrap(), fetched(b"next"));
            let received = near.traffic().received;
            let most = if whole { 2 * SIZE - held.len() } else { SIZE - held.len() } as u64 + 5000;
            assert!(received <= most, "{received}, {} held", held.len());
            near.close(CloseCode::Done);
        });
    }
}

#[test]
fn signs_of_life_while_the_other_side_reads_are_no_content() {
    let large = noise(1, SIZE);
    let (here, held) = (World::new(&[("f", &large)]), 5 << 20);
    let (near, far) = ends();
    thread::scope(|scope| {
        let large = &large;
        scope.spawn(move || {
            let mut channel = Channel::new(far.accept(LONG).unwrap());
            let Message::FetchRequest(request) = channel.receive().unwrap() else { panic!("no request") };
            assert_eq!(request.files[0].offset, held);
            let begin = Message::FileBegin(FileBegin { file: 0, size: SIZE as u64, encoding: Encoding::Raw });
            let data = |bytes: &[u8]| Message::FileData(FileData { data: Data::Plain(bytes.into()) });
            let content = large[held as usize..].chunks(MAX_DATA).flat_map(|piece| [data(&[]), data(piece), data(&[])]);
            let end = Message::FileEnd(FileEnd { hash: fetched(large).hash });
            for message in [begin].into_iter().chain(content).chain([end]) {
                channel.send(&message).and_then(|()| channel.flush()).unwrap();
            }
            // The stream stays until the other side has read.
            let _ = channel.next_or_end();
        });
        let source = RemoteSource::new(near.clone()).unwrap().without_lanes();
        let wanted = Wanted { held, ..here.wanted("f") };
        let mut target = tempfile::tempfile().unwrap();
        target.write_all(&large[..held as usize]).unwrap();
        target.rewind().unwrap();
        let mut feed = source.feed(&here.root, vec![wanted]);
        assert_eq!(feed.fetch(0, &mut target).unwrap(), fetched(large));
        assert_eq!(target.metadata().unwrap().len(), SIZE as u64);
        drop(feed);
        near.close(CloseCode::Done);
    });
}

/// Creates `f` of `there` at `here`.
fn create(here: &World, there: &World, source: &RemoteSource) -> Result<Applied, ApplyError> {
    let path = RelPath::parse(b"f").unwrap();
    let row = there.state.entry(&path).unwrap().unwrap().row;
    let context = Context {
        root: &here.root,
        state: &here.state,
        source,
        mask: MASK,
        keep_versions: None,
        monitor: &Silent,
        side: 0,
        state_elsewhere: false,
        under_way: &UnderWay::default(),
        reserve: crate::reserve::Reserve::NONE,
    };
    let mut apply = Apply::new(context, Moves::new()).unwrap();
    let stamp = Stamp::Given { m: row.m.clone(), c: row.c.clone() };
    let learn = Some(Arc::new(row.m.clone()));
    let (displaced, settles) = (Displaced::Versions, false);
    let action = Action::Write { row, from: path.clone(), expect: None, stamp, learn, displaced, settles };
    apply.push(Step { ticket: 1, path, action })?;
    apply.finish()
}

fn staged(world: &World) -> Vec<(String, u64)> {
    let names = fs::read_dir(world.folder.path().join(".driftless/stage")).unwrap().map(Result::unwrap);
    names.map(|entry| (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().len())).collect()
}

/// Sends the first bytes of a file, and ends the connection once `here` holds them.
fn cut(connection: &Connection, here: &World, bytes: &[u8], size: u64) {
    let (parked, mut asking) = (Parked::default(), None);
    for _ in 0..=LANES {
        let mut channel = Channel::new(connection.accept(LONG).unwrap());
        match channel.receive().unwrap() {
            Message::Lane(Lane { number }) => parked.put(number, channel).unwrap(),
            Message::Widen(widen) => asking = Some((Lanes::new(channel), widen.lanes)),
            other => panic!("{other:?}"),
        }
    }
    let (mut channel, numbers) = asking.unwrap();
    channel.widen(parked.take(&numbers).unwrap());
    assert!(matches!(channel.main().receive().unwrap(), Message::FetchRequest(_)));
    channel.send(&Message::FileBegin(FileBegin { file: 0, size, encoding: Encoding::Raw })).unwrap();
    for piece in bytes.chunks(MAX_DATA) {
        channel.send(&Message::FileData(FileData { data: Data::Plain(piece.into()) })).unwrap();
    }
    channel.flush().unwrap();
    let until = Instant::now() + LONG;
    while staged(here).iter().all(|(_, len)| *len < bytes.len() as u64) {
        assert!(Instant::now() < until, "{:?}", staged(here));
        thread::yield_now();
    }
    connection.close(CloseCode::Failed);
}

#[test]
fn what_came_before_the_connection_was_lost_is_not_sent_again() {
    for (was_read, is_read_then) in [(true, false), (false, false), (false, true)] {
        goes_on_behind_what_came(was_read, is_read_then);
    }
}

/// A file that had been read before, so that its hash is known, or not; or is read between both runs.
fn goes_on_behind_what_came(was_read: bool, is_read_then: bool) {
    let large = noise(1, SIZE);
    let (here, there) = (World::new(&[]), World::new(&[("f", &large)]));
    if was_read {
        there.read_all();
    }
    assert_eq!(there.wanted("f").hash.is_some(), was_read);
    let held = 5 << 20;
    let (near, far) = ends();
    thread::scope(|scope| {
        scope.spawn(|| cut(&far, &here, &large[..held], SIZE as u64));
        let source = RemoteSource::new(near.clone()).unwrap();
        let stopped = create(&here, &there, &source);
        assert!(matches!(stopped, Err(ApplyError::Source(SourceError::Remote(_)))), "{stopped:?}");
    });
    let [(name, len)] = &staged(&here)[..] else { panic!("{:?}", staged(&here)) };
    assert!(name.starts_with("half-") && *len == held as u64, "{name} {len}");
    recover(&here.root, &here.state, MASK).unwrap();
    assert_eq!(staged(&here).len(), 1);
    if is_read_then {
        there.read_all();
        assert!(there.wanted("f").hash.is_some());
    }
    let received = with_source(&there, |source| {
        let applied = create(&here, &there, source).unwrap();
        assert!(applied.complete, "{:?}", applied.problems);
        source.traffic().received
    });
    assert!(received < (SIZE - held) as u64 + 5000, "{received}");
    assert!(fs::read(here.folder.path().join("f")).unwrap() == large);
    assert_eq!(staged(&here), []);
    let path = RelPath::parse(b"f").unwrap();
    let row = here.state.entry(&path).unwrap().unwrap().row;
    assert_eq!(row.object.content, Content::File { size: SIZE as u64, hash: Some(fetched(&large).hash) });
}

#[test]
fn what_fails_for_another_reason_leaves_nothing() {
    let large = noise(1, SIZE);
    let (here, there) = (World::new(&[]), World::new(&[("f", &large)]));
    there.read_all();
    there.write("f", b"edited");
    with_source(&there, |source| {
        let applied = create(&here, &there, source).unwrap();
        assert_eq!((applied.complete, applied.problems.len()), (false, 1));
    });
    assert_eq!(staged(&here), []);
}

#[test]
fn through_a_third_machine_content_comes_over_the_stream_of_its_request_alone() {
    let large = noise(1, SIZE);
    let world = &World::new(&[("f", &large)]);
    let (near, far) = ends();
    thread::scope(|scope| {
        let source = RemoteSource::new(near.clone()).unwrap().without_lanes();
        let mut feed = source.feed(&world.root, vec![world.wanted("f")]);
        // It was asked for already, and nothing else came before.
        let mut asked = Lanes::new(Channel::new(far.accept(LONG).unwrap()));
        let Message::FetchRequest(request) = asked.main().receive().unwrap() else { panic!("no request") };
        scope.spawn(move || super::content::answer(&world.root, &world.state, request, &mut asked).unwrap());
        assert_eq!(take(&mut *feed, 0).0.unwrap(), fetched(&large));
        near.close(CloseCode::Done);
    });
}
