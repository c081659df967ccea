//! Calls every address of every peer itself, where no agent tells how the links are; and judges what came of it.

use super::{Finding, MACHINE};
use std::collections::BTreeMap;
use std::time::Duration;
use sync_core::io::link::{CloseCode, Network};
use sync_core::path::escape;
use sync_core::peer::{Address, Id};

/// How long one address may take to answer.
pub(super) const CALL: Duration = Duration::from_secs(5);

/// One address of one peer.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) peer: String,
    pub(super) id: Id,
    pub(super) address: Address,
}

/// What came of one call: the round trip, or why there was no answer; `None`: it was not over in time.
pub(super) type Called = Option<Result<Duration, String>>;

/// Calls one address and hangs up.
pub(super) fn call(network: &Network, target: &Target) -> Result<Duration, String> {
    let connection = network.dial(target.id, std::slice::from_ref(&target.address), CALL).map_err(|error| error.to_string())?;
    let rtt = connection.quality().rtt;
    connection.close(CloseCode::Probe);
    Ok(rtt)
}

/// What is to be said of the peers: each address told apart. `silent`: peers without an address.
pub(super) fn findings(called: &[(Target, Called)], silent: &[String]) -> Vec<Finding> {
    let mut peers: BTreeMap<&str, Vec<(&Target, &Called)>> = BTreeMap::new();
    for (target, called) in called {
        peers.entry(&target.peer).or_default().push((target, called));
    }
    let mut found = Vec::new();
    let mut reached = 0;
    for (peer, calls) in &peers {
        let subject = format!("peer {}", escape(peer.as_bytes()));
        let answers = calls.iter().any(|(_, called)| matches!(called, Some(Ok(_))));
        reached += usize::from(answers);
        for (target, called) in calls {
            let address = target.address.as_str();
            let why = match called {
                Some(Ok(rtt)) => {
                    let text = format!("answers at {address}, round trip {:.1} ms", rtt.as_secs_f64() * 1_000.0);
                    found.push(Finding::ok("call", &subject, text));
                    continue;
                }
                Some(Err(why)) => escape(why.as_bytes()),
                None => format!("{address}: no answer in time"),
            };
            let port = address.rsplit_once(':').map_or("", |(_, port)| port);
            let (text, advice) = match answers {
                true => (
                    format!("does not answer there: {why}"),
                    format!("open UDP {port} there, or take the address {address} away"),
                ),
                false => {
                    let runs = format!(
                        "see that driftless agent or serve runs there and knows this machine, and that UDP {port} is open"
                    );
                    (format!("cannot be called: {why}"), runs)
                }
            };
            found.push(Finding::warning("call", &subject, text, advice));
        }
    }
    if reached == 0 && !peers.is_empty() {
        let text = "no peer can be called from here";
        found.push(Finding::broken(
            "call",
            MACHINE,
            text,
            "see what is said of each; if all of them fail, look at this machine's network",
        ));
    }
    let calls_here =
        |peer: &String| Finding::ok("call", format!("peer {}", escape(peer.as_bytes())), "has no address: it has to call");
    found.extend(silent.iter().map(calls_here));
    found
}

#[cfg(test)]
mod tests {
    use super::super::Severity::{self, Broken, Ok as Fine, Warning};
    use super::*;
    use sync_core::peer::PublicKey;

    fn target(peer: &str, address: &str) -> Target {
        Target { peer: peer.into(), id: PublicKey::from_bytes([2; 32]).id(), address: address.parse().unwrap() }
    }

    fn weights(called: &[(Target, Called)]) -> Vec<(String, Severity)> {
        findings(called, &[]).into_iter().map(|finding| (finding.subject, finding.severity)).collect()
    }

    #[test]
    fn every_address_is_told_apart() {
        let (good, bad) = (Some(Ok(Duration::from_micros(12_340))), Some(Err("b:2: no answer\n".to_owned())));
        let called = [(target("web-2", "a:1"), good), (target("web-2", "b:2"), bad)];
        let found = findings(&called, &["web-3".into()]);
        assert_eq!(found[0].found, "answers at a:1, round trip 12.3 ms");
        assert_eq!((found[1].severity, found[1].found.as_str()), (Warning, "does not answer there: b:2: no answer\\u{a}"));
        assert_eq!(found[1].advice.as_deref(), Some("open UDP 2 there, or take the address b:2 away"));
        assert_eq!((found[2].subject.as_str(), found[2].severity), ("peer web-3", Fine));
    }

    #[test]
    fn it_is_broken_when_nobody_can_be_called() {
        let away = || Some(Err("no answer".to_owned()));
        let called = [(target("web-2", "a:1"), away()), (target("web-3", "b:2"), None)];
        let expected = [("peer web-2", Warning), ("peer web-3", Warning), (MACHINE, Broken)];
        assert_eq!(weights(&called), expected.map(|(subject, severity)| (subject.to_owned(), severity)));
        assert_eq!(weights(&[]), []);
    }
}
