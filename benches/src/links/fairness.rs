//! A transfer of driftless beside a flow of TCP cubic on one link: how much of it each gets.

use crate::args::Args;
use crate::cases::SEED;
use crate::edits::write_noise;
use crate::lab::Lab;
use crate::links::bad::{DELAY, MBIT};
use crate::links::net::{Control, Net};
use crate::links::pair::{Pair, remove_tree};
use crate::links::sheet::Sheet;
use crate::links::tool::Tool;
use anyhow::{Context as _, Result, bail};
use fixtures::linkemu::Conditions;
use serde_json::json;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

/// More than the link carries in the whole time.
pub(crate) const SIZE: u64 = 800 << 20;
/// Time that does not count after both are under way, and time that does.
const SETTLING: Duration = Duration::from_secs(10);
const COUNTED: Duration = Duration::from_secs(30);
/// How long the transfer may take until content flows, and bytes that tell that it does.
const START: Duration = Duration::from_secs(20);
const FLOWING: u64 = 1 << 20;
/// How much earlier TCP begins where it is first.
const AHEAD: Duration = Duration::from_secs(10);
/// The server ends at this at the latest.
const DEADLINE: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(20);
const TCP_PORT: u16 = 5001;
const CHUNK: usize = 64 << 10;

/// Who is on the link when the other one comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    Driftless,
    Tcp,
}

/// Mbit/s on the link.
struct Shares {
    driftless: f64,
    tcp: f64,
}

pub(crate) fn run(lab: &mut Lab, args: &Args) -> Result<Sheet> {
    let a = lab.folder("source")?;
    write_noise(&a.join("large"), SIZE, SEED + 700)?;
    let (mut rows, mut runs) = (Vec::new(), Vec::new());
    for (first, label) in [(First::Driftless, "driftless first, TCP at once"), (First::Tcp, "TCP first, driftless 10 s later")] {
        for round in 0..args.rounds {
            let Shares { driftless, tcp } = beside(lab, args, &a, first, round as u64 + 1)?;
            let share = driftless / (driftless + tcp) * 100.0;
            eprintln!("  {label}: driftless {driftless:.1} Mbit/s ({share:.0} %), TCP cubic {tcp:.1}");
            rows.push(vec![label.to_owned(), format!("{driftless:.1}"), format!("{tcp:.1}"), format!("{share:.0} %")]);
            runs.push(json!({"first": label, "driftless_mbit": driftless, "tcp_cubic_mbit": tcp}));
        }
    }
    let head = ["who came first", "driftless, Mbit/s", "TCP cubic, Mbit/s", "share of driftless"];
    let title = format!(
        "One file on its way beside one flow of TCP cubic over {MBIT} Mbit/s and 50 ms, queue of a thousand packets, nothing \
         lost but by the queue: {} s, headers included, after {} s in which both were under way.",
        COUNTED.as_secs(),
        SETTLING.as_secs()
    );
    Ok(Sheet { case: "fairness", title, head: head.map(str::to_owned).to_vec(), rows, runs, faults: Vec::new() })
}

fn beside(lab: &mut Lab, args: &Args, a: &Path, first: First, seed: u64) -> Result<Shares> {
    let b = lab.folder("target")?;
    let pair = Pair::new(lab, Tool::Driftless(args.driftless.clone()), b)?;
    let net = Net::emulated(Conditions::new(MBIT, DELAY), Some(Control::Cubic), seed)?;
    let server = pair.serve(lab, &net, DEADLINE)?;
    let tcp = Flow::prepare(&net)?;
    let shares = std::thread::scope(|scope| {
        let end = tcp.end()?;
        let mut tcp = Some(tcp);
        let mut begin = || tcp.take().map(|tcp| scope.spawn(move || tcp.run()));
        let shares = (|| {
            if first == First::Tcp {
                begin();
                std::thread::sleep(AHEAD);
            }
            let (client, _) = pair.call(lab, a, &net, DEADLINE, false)?;
            wait_for_content(&net)?;
            begin();
            std::thread::sleep(SETTLING);
            let (before, start) = (carried(&net)?, Instant::now());
            std::thread::sleep(COUNTED);
            let (after, seconds) = (carried(&net)?, start.elapsed().as_secs_f64());
            drop(client);
            let mbit = |index: usize| (after[index] - before[index]) as f64 * 8e-6 / seconds;
            Ok(Shares { driftless: mbit(0), tcp: mbit(1) })
        })();
        // Whatever happened, the threads of the flow end.
        end.iter().for_each(|end| drop(end.shutdown(Shutdown::Both)));
        shares
    });
    server.end()?;
    pair.remove()?;
    let state = a.join(".driftless");
    if state.exists() {
        remove_tree(&state)?;
    }
    shares
}

/// Bytes that came through to the server's side: datagrams, which are driftless's, and the rest.
fn carried(net: &Net) -> Result<[u64; 2]> {
    let [out, _] = net.counts().context("an emulated link counts")?;
    Ok([out.udp_bytes, out.bytes - out.udp_bytes])
}

fn wait_for_content(net: &Net) -> Result<()> {
    let end = Instant::now() + START;
    while carried(net)?[0] < FLOWING {
        if Instant::now() > end {
            bail!("driftless sent less than 1 MiB within {} s", START.as_secs());
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

/// A flow of TCP to the server's side that is never done.
struct Flow {
    out: TcpStream,
    into: TcpStream,
}

impl Flow {
    fn prepare(net: &Net) -> Result<Flow> {
        let address = net.there().address;
        let listener = net.there().run(|| TcpListener::bind((address, TCP_PORT)).context("cannot listen"))?;
        let out = net.here().run(|| TcpStream::connect((address, TCP_PORT)).context("cannot connect"))?;
        let (into, _) = listener.accept().context("cannot accept")?;
        Ok(Flow { out, into })
    }

    /// What ends it from another thread.
    fn end(&self) -> Result<[TcpStream; 2]> {
        Ok([self.out.try_clone().context("cannot share a socket")?, self.into.try_clone().context("cannot share a socket")?])
    }

    fn run(self) {
        let Flow { mut out, mut into } = self;
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let chunk = vec![7; CHUNK];
                // Ends when the sockets are shut down.
                while out.write_all(&chunk).is_ok() {}
            });
            let mut chunk = vec![0; CHUNK];
            while let Ok(1..) = into.read(&mut chunk) {}
        });
    }
}
