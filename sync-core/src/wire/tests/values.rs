//! Any message.

use super::*;
use crate::delta::Shape;
use crate::entry::{AttrMask, Kind};
use crate::knowledge::Tree;
use crate::peer::{Id, Mode};
use crate::wire::hello::Versions;
use prop::collection::{btree_map, btree_set, vec};
use prop::option::of;

fn size() -> impl Strategy<Value = u64> {
    prop_oneof![0..300u64, 0..=MAX_SIZE, Just(MAX_SIZE)]
}

fn text() -> impl Strategy<Value = String> {
    ".{0,30}"
}

pub(super) fn name() -> impl Strategy<Value = Name> {
    let plain = "[a-z]{1,8}".prop_map(String::into_bytes);
    let any = prop_oneof![4 => plain, 1 => vec(any::<u8>(), 1..20)];
    any.prop_filter_map("no name", |bytes| Name::parse(&bytes).ok())
}

fn rel_path() -> impl Strategy<Value = RelPath> {
    vec(name(), 0..5).prop_map(|names| names.iter().fold(RelPath::root(), |path, name| path.join(name)))
}

fn replica() -> impl Strategy<Value = ReplicaId> {
    prop_oneof![(0..4u8).prop_map(|n| ReplicaId([n; 16])), any::<[u8; 16]>().prop_map(ReplicaId)]
}

fn vector(least: usize) -> impl Strategy<Value = Vector> {
    let events = btree_map(replica(), prop_oneof![1..200u64, 1..=MAX_SIZE], least..4);
    events.prop_map(|events| events.into_iter().map(|(replica, counter)| Event { replica, counter }).collect())
}

fn hash() -> impl Strategy<Value = Hash> {
    any::<[u8; 32]>().prop_map(Hash)
}

fn digest() -> impl Strategy<Value = Digest> {
    any::<u128>().prop_map(Digest)
}

fn kind() -> impl Strategy<Value = Kind> {
    prop::sample::select(vec![Kind::Dir, Kind::File, Kind::Symlink])
}

fn attrs() -> impl Strategy<Value = Attrs> {
    let owner = || prop_oneof![Just(0), 0..u32::MAX];
    let mode = prop_oneof![Just(0o644u32), 0..=0o7777u32];
    (mode, owner(), owner(), any::<i64>()).prop_map(|(mode, uid, gid, mtime_ns)| Attrs { mode, uid, gid, mtime_ns })
}

fn row() -> impl Strategy<Value = Row> {
    let content = prop_oneof![
        Just(Content::Dir),
        (size(), of(hash())).prop_map(|(size, hash)| Content::File { size, hash }),
        vec(any::<u8>(), 0..40).prop_map(|target| Content::Symlink(target.into())),
    ];
    let versions = prop_oneof![
        vector(1).prop_map(|m| (m.iter().collect(), m)),
        (vector(1), vector(1)).prop_map(|(c, m)| (c.iter().collect::<Creation>(), m)),
    ];
    (content, attrs(), versions).prop_map(|(content, attrs, (c, m))| Row { object: Object { content, attrs }, m, c })
}

fn tree() -> impl Strategy<Value = Tree> {
    (vector(0), vector(0), digest()).prop_map(|(s, bound, digest)| Tree { s, bound: Arc::new(bound), digest })
}

fn child() -> impl Strategy<Value = (Option<Row>, Option<Arc<Vector>>, Option<Tree>)> {
    let any = (of(row()), of(vector(0).prop_map(Arc::new)), of(tree()));
    any.prop_filter("a directory has a tree", |(row, _, tree)| {
        tree.is_some() || row.as_ref().is_none_or(|row| row.object.kind() != Kind::Dir)
    })
}

pub(super) fn listing() -> impl Strategy<Value = Listing> {
    let header = (rel_path(), vector(0), vector(0), digest(), size(), any::<bool>());
    (header, btree_map(name(), child(), 0..12)).prop_map(|((path, sub, bound, digest, seq, full), children)| {
        let children = children.into_iter().map(|(name, (row, own, tree))| Child { name, row, own, tree }).collect();
        Listing { path, sub: Arc::new(sub), bound: Arc::new(bound), digest, seq, full, children }
    })
}

fn identity() -> impl Strategy<Value = Identity> {
    (replica(), any::<u64>(), size(), any::<u64>()).prop_map(|(replica, instance, counter, nonce)| Identity {
        replica,
        instance,
        counter,
        nonce,
    })
}

fn paths() -> impl Strategy<Value = Vec<RelPath>> {
    btree_set(rel_path(), 0..5).prop_map(|paths| paths.into_iter().collect())
}

fn introduction() -> impl Strategy<Value = Introduction> {
    let remembered =
        (replica(), size(), any::<u64>()).prop_map(|(replica, counter, nonce)| Remembered { replica, counter, nonce });
    (of(identity()), vector(0), vec(remembered, 0..4), vec(any::<u8>(), 0..40), any::<bool>()).prop_map(
        |(identity, knows, remembers, location, expects)| Introduction { identity, knows, remembers, location, expects },
    )
}

fn packing() -> impl Strategy<Value = Packing> {
    prop::sample::select(vec![Packing::Off, Packing::Auto, Packing::On])
}

fn transfer() -> impl Strategy<Value = Transfer> {
    (packing(), any::<bool>(), of(size())).prop_map(|(packing, whole_files, limit)| Transfer { packing, whole_files, limit })
}

fn open() -> impl Strategy<Value = Open> {
    let policies = [Policy::Skip, Policy::KeepBoth, Policy::Newer, Policy::Older, Policy::Asker, Policy::Asked];
    let guard =
        prop_oneof![Just(MaxDelete::Off), size().prop_map(MaxDelete::Count), (0.0..=100.0f64).prop_map(MaxDelete::Percent)];
    let what = (text(), rel_path(), introduction(), any::<[bool; 6]>(), paths());
    let transfer = (transfer(), of(size()));
    let how = (prop::sample::select(policies.to_vec()), of(any::<bool>()), text(), text(), guard, transfer);
    (what, how).prop_map(
        |((folder, sub, introduction, flags, scope), (policy, force, run_rules, rules, max_delete, (transfer, watched)))| Open {
            folder,
            sub,
            introduction,
            dry_run: flags[0],
            rejoin: flags[1],
            checksum: flags[2],
            scope,
            policy,
            force: force.map(|asker| if asker { Side::Asker } else { Side::Asked }),
            mask: AttrMask { perms: flags[3], owner: flags[4], times: flags[5] },
            run_rules,
            rules,
            max_delete,
            transfer,
            watched,
        },
    )
}

fn mode() -> impl Strategy<Value = Mode> {
    prop::sample::select(vec![Mode::TwoWay, Mode::SendOnly, Mode::ReceiveOnly, Mode::NoDelete])
}

fn opened() -> impl Strategy<Value = Opened> {
    (mode(), introduction(), text(), text(), any::<[bool; 2]>()).prop_map(
        |(mode, introduction, root, rules, [sets_owner, passing])| Opened {
            mode,
            introduction,
            root,
            rules,
            sets_owner,
            passing,
        },
    )
}

fn list_request() -> impl Strategy<Value = ListRequest> {
    let names = btree_set(name(), 0..5).prop_map(|names| Filter::Only(names.into_iter().collect()));
    let filter = prop_oneof![Just(Filter::All), size().prop_map(Filter::Since), names];
    (rel_path(), filter, 0..=MAX_AHEAD).prop_map(|(path, filter, ahead)| ListRequest { path, filter, ahead })
}

fn problems() -> impl Strategy<Value = Vec<Problem>> {
    let problem = (rel_path(), text(), text()).prop_map(|(path, step, error)| Problem { path, step, error });
    vec(problem, 0..4)
}

fn failure() -> impl Strategy<Value = Failure> {
    let codes = [FailureCode::Stale, FailureCode::Changes, FailureCode::Unreadable, FailureCode::Base];
    (prop::sample::select(codes.to_vec()), text()).prop_map(|(code, text)| Failure { code, text })
}

fn wanted() -> impl Strategy<Value = Wanted> {
    let base = (1..=1u64 << 30).prop_map(|base| Shape::of(base).unwrap().announced());
    (rel_path(), size(), of(hash()), vector(1), any::<u64>(), of(base)).prop_map(|(path, size, hash, m, offset, base)| {
        let offset = if base.is_some() { 0 } else { offset % (size + 1) };
        Wanted { path, size, hash, m, offset, base }
    })
}

fn bytes() -> impl Strategy<Value = Box<[u8]>> {
    vec(any::<u8>(), 1..50).prop_map(Into::into)
}

fn data() -> impl Strategy<Value = Data> {
    prop_oneof![bytes().prop_map(Data::Plain), bytes().prop_map(Data::Packed)]
}

fn small_files() -> impl Strategy<Value = SmallFiles> {
    let one = (vec(any::<u8>(), 0..50), hash());
    (any::<u32>(), vec(one, 1..5), of(bytes())).prop_map(|(first, files, packed)| {
        let plain = Data::Plain(files.iter().flat_map(|(bytes, _)| bytes.clone()).collect());
        let files = files.iter().map(|(bytes, hash)| SmallFile { size: bytes.len() as u64, hash: *hash }).collect();
        SmallFiles { first, files, data: packed.map_or(plain, Data::Packed) }
    })
}

pub(super) fn item() -> impl Strategy<Value = Item> {
    let verbs = [Verb::Create, Verb::Update, Verb::Delete, Verb::Move, Verb::Meta, Verb::Conflict];
    let outcomes = [Outcome::Done, Outcome::Skipped, Outcome::Failed];
    let why = of((0..4u8).prop_map(|n| Message::decode(&[27, 0, 0, 0, 0, 0, 1, n, 0])));
    let reason = why.prop_map(|message| match message? {
        Ok(Message::Item(item)) => item.reason,
        other => panic!("{other:?}"),
    });
    let done = of(prop::sample::select(outcomes.to_vec()));
    (rel_path(), kind(), prop::sample::select(verbs.to_vec()), of(rel_path()), size(), reason, done)
        .prop_map(|(path, kind, verb, from, bytes, reason, done)| Item { path, kind, verb, from, bytes, reason, done })
}

fn totals() -> impl Strategy<Value = Totals> {
    vec(size(), 8).prop_map(|n| Totals {
        created: n[0],
        updated: n[1],
        deleted: n[2],
        moved: n[3],
        conflicts: n[4],
        skipped: n[5],
        failed: n[6],
        bytes: n[7],
    })
}

fn hello() -> impl Strategy<Value = Message> {
    let rest = || (text(), any::<u64>(), any::<[u8; 32]>(), vec(any::<u8>(), 0..=MAX_TOKEN));
    let refusals = [
        Refusal::Version,
        Refusal::UnknownPeer,
        Refusal::NotGranted,
        Refusal::Busy,
        Refusal::Lineage,
        Refusal::Token,
        Refusal::Folder,
        Refusal::Guard,
        Refusal::Request,
        Refusal::Failed,
    ];
    prop_oneof![
        (any::<u32>(), any::<u32>(), rest()).prop_map(|(a, b, (program, capabilities, nonce, token))| {
            let versions = Versions { oldest: a.min(b), newest: a.max(b) };
            Message::Hello(Hello { versions, program, capabilities, nonce, token })
        }),
        (any::<u32>(), rest()).prop_map(|(version, (program, capabilities, nonce, proof))| {
            Message::HelloAnswer(HelloAnswer { version, program, capabilities, nonce, proof })
        }),
        (prop::sample::select(refusals.to_vec()), text()).prop_map(|(code, text)| Message::Refused(Refused { code, text })),
    ]
}

fn looking() -> impl Strategy<Value = Message> {
    let phases = [Phase::Scan, Phase::Compare, Phase::Plan, Phase::Apply];
    prop_oneof![
        Just(Message::Scan(Nothing)),
        (vec(size(), 5), problems(), paths(), identity(), vector(0), vector(0), digest(), any::<bool>()).prop_map(
            |(n, problems, unavailable, identity, sub, bound, digest, decisions)| {
                let (entries, changed, vanished, failed, seq) = (n[0], n[1], n[2], n[3], n[4]);
                let numbers = Scanned {
                    entries,
                    changed,
                    vanished,
                    failed,
                    problems,
                    unavailable,
                    seq,
                    identity,
                    sub,
                    bound,
                    digest,
                    decisions,
                };
                Message::Scanned(numbers)
            }
        ),
        (text(), rel_path(), vec(any::<u8>(), 0..40), any::<bool>())
            .prop_map(|(folder, sub, location, rejoin)| { Message::Introduce(Introduce { folder, sub, location, rejoin }) }),
        (introduction(), text(), any::<bool>()).prop_map(|(introduction, rules, sets_owner)| {
            Message::Introduced(Introduced { introduction, rules, sets_owner })
        }),
        (identity(), size(), any::<[bool; 2]>(), paths()).prop_map(|(identity, seq, [passing, decisions], unavailable)| {
            Message::Ready(Ready { identity, seq, passing, unavailable, decisions })
        }),
        vec(size(), 6).prop_map(|n| {
            let (sent, lost, incorporated, files, bytes, clock_ms) = (n[0], n[1], n[2], n[3], n[4], n[5]);
            Message::Report(Report { sent, lost, incorporated, files, bytes, clock_ms })
        }),
        gossip().prop_map(Message::Gossip),
        (text(), introduction(), text(), any::<bool>(), mode()).prop_map(|(folder, introduction, rules, sets_owner, mode)| {
            Message::Join(Join { folder, introduction, rules, sets_owner, mode })
        }),
        (prop::sample::select(phases.to_vec()), size(), of(size()), size(), of(size())).prop_map(
            |(phase, files, files_total, bytes, bytes_total)| {
                Message::Progress(Progress { phase, files, files_total, bytes, bytes_total })
            }
        ),
        text().prop_map(|text| Message::Notice(Notice { text })),
        Just(Message::Cancel(Nothing)),
        Just(Message::Changed(Nothing)),
        list_request().prop_map(Message::ListRequest),
        (any::<bool>(), paths()).prop_map(|(first, paths)| Message::Also(Also { first, paths })),
        (listing(), any::<bool>()).prop_map(|(listing, last)| Message::Listing(Piece { listing, last })),
        any::<u32>().prop_map(|directories| Message::ListingEnd(ListingEnd { directories })),
        rel_path().prop_map(|path| Message::DigestRequest(DigestRequest { path })),
        digest().prop_map(|digest| Message::Digest(DigestAnswer { digest })),
    ]
}

fn id() -> impl Strategy<Value = Id> {
    any::<[u8; 20]>().prop_map(Id::from_bytes)
}

fn gossip() -> impl Strategy<Value = Gossip> {
    let address = || (0..4u8, 1..60_000u16).prop_map(|(host, port)| format!("10.0.0.{host}:{port}").parse().unwrap());
    let reaches = prop_oneof![address().prop_map(Reaches::Answers), ".{0,30}".prop_map(|why: String| Reaches::fails(&why))];
    let way = (any::<u32>(), 0..=1_000_000u64, of(size())).prop_map(|(rtt_us, lost, goodput)| Way { rtt_us, lost, goodput });
    let called = of(prop::sample::select(vec![Caller::Teller, Caller::Other]));
    let links = btree_map(id(), (mode(), any::<bool>(), called, of(reaches), of(way)), 0..4).prop_map(|links| {
        let tie = |(to, (mode, learnt, called, reaches, way))| Tie { to, mode, learnt, called, reaches, way };
        links.into_iter().map(tie).collect()
    });
    let account = (size(), 0..=MAX_AGE_S, "[a-z]{1,9}", vec(address(), 0..4), any::<bool>(), links);
    btree_map(id(), account, 0..4).prop_map(|accounts| {
        let account = |(origin, (number, age_s, name, addresses, introduces, links)): (Id, (u64, u64, String, _, _, _))| {
            Account { origin, number, age_s, name: name.parse().unwrap(), addresses, introduces, links }
        };
        Gossip { machines: accounts.into_iter().map(account).collect() }
    })
}

fn decided() -> impl Strategy<Value = Message> {
    let decisions = [Decision::Local, Decision::Remote, Decision::Newer, Decision::Both];
    let one = (prop::sample::select(decisions.to_vec()), vector(0));
    prop_oneof![
        replica().prop_map(|with| Message::DecidedRequest(DecidedRequest { with })),
        (btree_map(rel_path(), one, 0..5), any::<bool>()).prop_map(|(paths, last)| {
            let paths = paths.into_iter().map(|(path, (decision, about))| DecidedPath { path, decision, about }).collect();
            Message::Decided(Decided { paths, last })
        }),
    ]
}

fn content() -> impl Strategy<Value = Message> {
    let result = prop_oneof![hash().prop_map(HashResult::Hash), failure().prop_map(HashResult::Failed)];
    let encodings = [Encoding::Raw, Encoding::Delta];
    prop_oneof![
        vec(rel_path(), 0..5).prop_map(|paths| Message::HashRequest(HashRequest { paths })),
        (any::<u32>(), vec(result, 0..5)).prop_map(|(first, results)| Message::Hashed(Hashed { first, results })),
        (packing(), vec(wanted(), 0..5)).prop_map(|(packing, files)| Message::FetchRequest(FetchRequest { packing, files })),
        any::<u64>().prop_map(|number| Message::Lane(Lane { number })),
        vec(any::<u64>(), 0..5).prop_map(|lanes| Message::Widen(Widen { lanes })),
        (any::<u32>(), bytes()).prop_map(|(file, bytes)| Message::SignaturePart(SignaturePart { file, bytes })),
        (any::<u32>(), size(), prop::sample::select(encodings.to_vec()))
            .prop_map(|(file, size, encoding)| Message::FileBegin(FileBegin { file, size, encoding })),
        data().prop_map(|data| Message::FileData(FileData { data })),
        hash().prop_map(|hash| Message::FileEnd(FileEnd { hash })),
        small_files().prop_map(Message::SmallFiles),
        (any::<u32>(), failure()).prop_map(|(file, failure)| Message::FileFailed(FileFailed { file, failure })),
    ]
}

fn work() -> impl Strategy<Value = Message> {
    prop_oneof![
        any::<bool>().prop_map(|items| Message::Survey(Survey { items })),
        item().prop_map(Message::Item),
        (totals(), of(text())).prop_map(|(totals, stopped)| Message::Surveyed(Surveyed { totals, stopped })),
        (any::<u32>(), any::<bool>()).prop_map(|(number, items)| Message::Apply(Apply { number, items })),
        (totals(), problems(), any::<[bool; 4]>(), of(text()), identity(), size()).prop_map(
            |(totals, problems, flags, stopped, identity, seq)| {
                let [whole, cancelled, again, news] = flags;
                Message::Applied(Applied { totals, problems, whole, cancelled, again, news, stopped, identity, seq })
            }
        ),
        Just(Message::Finish(Nothing)),
        prop_oneof![Just(RulesNow::Same), text().prop_map(RulesNow::Other), Just(RulesNow::Unusable)]
            .prop_map(|rules| Message::Finished(Finished { rules })),
        Just(Message::Bye(Nothing)),
    ]
}

pub(super) fn message() -> impl Strategy<Value = Message> {
    prop_oneof![
        2 => hello(),
        1 => open().prop_map(Message::Open),
        1 => opened().prop_map(Message::Opened),
        6 => looking(),
        1 => decided(),
        5 => content(),
        4 => work(),
    ]
}
