//! Pairing by a short code: the conversation in which two machines learn each other's keys. Pure; randomness and time are
//! handed in.
//!
//! SPAKE2 (RFC 9382, as the crate `spake2` has it) turns the code into a key that only both holders of the code share. Each
//! side then proves that key over everything that must be the same on both ends: both public keys, the secret exported from
//! the TLS session (RFC 8446, section 7.5), both SPAKE2 messages and the names. Whoever relays between the two has sessions of
//! its own with other keys and another secret, and can prove neither. The machine that asks proves first, so that a guess
//! yields nothing but a no; the one that shows the code takes one guess and no second.

use crate::peer::{NAME_BYTES, Name, PublicKey};
use rand_core::{CryptoRng, RngCore};
use spake2::{Ed25519Group, Identity, Password, Spake2};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// How long a code is good.
pub const LIFETIME: Duration = Duration::from_secs(600);
/// Digits of a code: seven by chance, 23 bits, and one that notices typing errors before they cost the guess.
const DIGITS: usize = 8;
const RANDOM_CODES: u64 = 10_000_000;
/// Bytes of a SPAKE2 message: its side and a point.
const SHARE_BYTES: usize = 33;
const PROOF_BYTES: usize = 32;
/// Bytes before the body of a message.
pub const HEAD_BYTES: usize = 2;
/// Bytes of the longest message.
pub const MESSAGE_BYTES: usize = HEAD_BYTES + PROOF_BYTES + NAME_BYTES;
const ASKING: &[u8] = b"driftless pairing 1: asks";
const SHOWING: &[u8] = b"driftless pairing 1: shows";
const RANDOM_CONTEXT: &str = "driftless pairing 1 randomness of the exchange";
const PROOF_ASKING_CONTEXT: &str = "driftless pairing 1 proof of the machine that asks";
const PROOF_SHOWING_CONTEXT: &str = "driftless pairing 1 proof of the machine that shows";

/// The quasigroup of H. Michael Damm (2004): notices every wrong digit and every two neighbours exchanged.
const DAMM: [[u8; 10]; 10] = [
    [0, 3, 1, 7, 5, 9, 8, 6, 4, 2],
    [7, 0, 9, 2, 1, 5, 4, 8, 6, 3],
    [4, 2, 0, 6, 8, 7, 1, 3, 5, 9],
    [1, 7, 5, 0, 9, 8, 3, 4, 2, 6],
    [6, 1, 2, 3, 0, 4, 5, 9, 7, 8],
    [3, 6, 7, 4, 2, 0, 9, 5, 8, 1],
    [5, 8, 6, 9, 7, 2, 0, 1, 3, 4],
    [8, 9, 4, 5, 3, 6, 2, 0, 1, 7],
    [9, 4, 3, 8, 6, 1, 7, 2, 0, 5],
    [2, 5, 8, 1, 4, 3, 6, 7, 9, 0],
];

/// Text that is no code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// Another number of digits, or other characters.
    #[error("a code has eight digits, such as 1234-5671")]
    Form,
    /// The last digit does not fit the others.
    #[error("the code has a typing error; nothing was tried with it")]
    Check,
}

/// A one-time code.
#[derive(Clone, PartialEq, Eq)]
pub struct Code([u8; DIGITS]);

impl Code {
    /// A code from eight random bytes. The bias of the remainder is below 2^-40.
    pub fn from_random(random: [u8; 8]) -> Code {
        let mut number = u64::from_le_bytes(random) % RANDOM_CODES;
        let mut digits = [0; DIGITS];
        for digit in digits[..DIGITS - 1].iter_mut().rev() {
            *digit = (number % 10) as u8;
            number /= 10;
        }
        digits[DIGITS - 1] = remainder(&digits[..DIGITS - 1]);
        Code(digits)
    }

    fn password(&self) -> Password {
        Password::new(self.0)
    }
}

fn remainder(digits: &[u8]) -> u8 {
    digits.iter().fold(0, |interim, digit| DAMM[usize::from(interim)][usize::from(*digit)])
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text: String = self.0.iter().map(|digit| char::from(b'0' + digit)).collect();
        write!(f, "{}-{}", &text[..DIGITS / 2], &text[DIGITS / 2..])
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Code(…)")
    }
}

impl FromStr for Code {
    type Err = CodeError;

    fn from_str(text: &str) -> Result<Code, CodeError> {
        let digits: Vec<u8> = text.bytes().filter(|b| !b"- ".contains(b)).take(DIGITS + 1).collect();
        if !digits.iter().all(u8::is_ascii_digit) || text.len() > 2 * DIGITS {
            return Err(CodeError::Form);
        }
        let values: Vec<u8> = digits.iter().map(|digit| digit - b'0').collect();
        let code = Code(values.try_into().map_err(|_| CodeError::Form)?);
        if remainder(&code.0) == 0 { Ok(code) } else { Err(CodeError::Check) }
    }
}

/// What both ends of one connection must agree about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding {
    /// The key of the machine that asks, as each end knows it.
    pub asking: PublicKey,
    /// The key of the machine that shows the code, as each end knows it.
    pub showing: PublicKey,
    /// The secret exported from the TLS session.
    pub exported: [u8; 32],
}

/// What is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// One half of SPAKE2.
    Share([u8; SHARE_BYTES]),
    /// The proof of the key, and the name that the sender would go by.
    Proof([u8; PROOF_BYTES], Name),
    /// The asking machine has stored the other one.
    Stored,
}

/// Bytes that are no message of pairing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message that does not belong to pairing")]
pub struct Malformed;

impl Message {
    const SHARE: u8 = 1;
    const PROOF: u8 = 2;
    const STORED: u8 = 3;

    /// The message as bytes: kind, length of the body, body.
    pub fn encode(&self) -> Vec<u8> {
        let (kind, body) = match self {
            Message::Share(share) => (Message::SHARE, share.to_vec()),
            Message::Proof(proof, name) => (Message::PROOF, [&proof[..], name.as_str().as_bytes()].concat()),
            Message::Stored => (Message::STORED, Vec::new()),
        };
        let length = u8::try_from(body.len()).expect("a body is a share, or a proof and a name of limited length");
        [&[kind, length][..], &body].concat()
    }

    /// How many bytes follow this head.
    pub fn body_bytes(head: [u8; HEAD_BYTES]) -> Result<usize, Malformed> {
        let length = usize::from(head[1]);
        let fits = match head[0] {
            Message::SHARE => length == SHARE_BYTES,
            Message::PROOF => (PROOF_BYTES + 1..=PROOF_BYTES + NAME_BYTES).contains(&length),
            Message::STORED => length == 0,
            _ => false,
        };
        if fits { Ok(length) } else { Err(Malformed) }
    }

    /// Decodes one whole message.
    pub fn decode(bytes: &[u8]) -> Result<Message, Malformed> {
        let (head, body) = bytes.split_first_chunk::<HEAD_BYTES>().ok_or(Malformed)?;
        if body.len() != Message::body_bytes(*head)? {
            return Err(Malformed);
        }
        match head[0] {
            Message::SHARE => Ok(Message::Share(body.try_into().map_err(|_| Malformed)?)),
            Message::PROOF => {
                let (proof, name) = body.split_first_chunk::<PROOF_BYTES>().ok_or(Malformed)?;
                let name = std::str::from_utf8(name).ok().and_then(|name| name.parse().ok()).ok_or(Malformed)?;
                Ok(Message::Proof(*proof, name))
            }
            _ => Ok(Message::Stored),
        }
    }
}

/// Why pairing comes to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The other side does not hold the code, or somebody stands between both.
    #[error("the code was wrong, or somebody stands between both machines")]
    Wrong,
    /// The code was guessed wrong before.
    #[error("the code is burnt: it was guessed wrong once")]
    Burnt,
    /// The code was used.
    #[error("the code has been used")]
    Used,
    /// The code is too old.
    #[error("the code has expired")]
    Expired,
    /// What the other side says of its code.
    #[error("the other side takes no code any more: it was used, burnt by a wrong one, or has expired")]
    Over,
    /// A message that does not belong here.
    #[error("the other side does not follow the rules of pairing")]
    Malformed,
}

impl From<Malformed> for Refusal {
    fn from(_: Malformed) -> Refusal {
        Refusal::Malformed
    }
}

/// Randomness that was handed in, drawn out as far as SPAKE2 asks for it.
struct Handed(blake3::OutputReader);

impl Handed {
    fn new(random: [u8; 32]) -> Handed {
        Handed(blake3::Hasher::new_derive_key(RANDOM_CONTEXT).update(&random).finalize_xof())
    }
}

impl CryptoRng for Handed {}

impl RngCore for Handed {
    fn next_u32(&mut self) -> u32 {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn next_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        self.0.fill(bytes);
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), rand_core::Error> {
        self.0.fill(bytes);
        Ok(())
    }
}

/// A key shared by the holders of the code, and what it is to be proven over.
struct Shared {
    key: Vec<u8>,
    transcript: Vec<u8>,
}

impl Shared {
    fn new(key: Vec<u8>, binding: &Binding, asking: &[u8; SHARE_BYTES], showing: &[u8; SHARE_BYTES]) -> Shared {
        let keys = [binding.asking.as_bytes(), binding.showing.as_bytes()].map(|key| &key[..]);
        let transcript = [keys[0], keys[1], &binding.exported, asking, showing].concat();
        Shared { key, transcript }
    }

    /// All parts before the name have a fixed length, so that no two transcripts are the same bytes.
    fn proof(&self, context: &str, name: &Name) -> blake3::Hash {
        let key = blake3::derive_key(context, &self.key);
        blake3::keyed_hash(&key, &[&self.transcript, name.as_str().as_bytes()].concat())
    }

    /// Compares in constant time.
    fn proves(&self, context: &str, name: &Name, proof: &[u8; PROOF_BYTES]) -> bool {
        self.proof(context, name) == *proof
    }
}

fn array(share: Vec<u8>) -> [u8; SHARE_BYTES] {
    share.try_into().expect("a share of SPAKE2 over Ed25519 has 33 bytes")
}

/// The machine on which the code is typed, its share sent.
pub struct Asking {
    exchange: Spake2<Ed25519Group>,
    share: [u8; SHARE_BYTES],
    binding: Binding,
}

/// The same, its proof sent.
pub struct Proven(Shared);

impl Asking {
    /// Begins; the message is to be sent.
    pub fn start(code: &Code, binding: Binding, random: [u8; 32]) -> (Asking, Message) {
        let names = (Identity::new(ASKING), Identity::new(SHOWING));
        let (exchange, share) = Spake2::start_a_with_rng(&code.password(), &names.0, &names.1, Handed::new(random));
        let share = array(share);
        (Asking { exchange, share, binding }, Message::Share(share))
    }

    /// Takes the other share; the message is to be sent.
    pub fn handle_share(self, message: &Message, own_name: Name) -> Result<(Proven, Message), Refusal> {
        let Message::Share(theirs) = message else { return Err(Refusal::Malformed) };
        let key = self.exchange.finish(theirs).map_err(|_| Refusal::Malformed)?;
        let shared = Shared::new(key, &self.binding, &self.share, theirs);
        let proof = shared.proof(PROOF_ASKING_CONTEXT, &own_name);
        Ok((Proven(shared), Message::Proof(*proof.as_bytes(), own_name)))
    }
}

impl Proven {
    /// Takes the other side's proof: from here on its key is trusted. Returns the name it would go by.
    pub fn handle_proof(self, message: &Message) -> Result<Name, Refusal> {
        let Message::Proof(proof, name) = message else { return Err(Refusal::Malformed) };
        if self.0.proves(PROOF_SHOWING_CONTEXT, name, proof) { Ok(name.clone()) } else { Err(Refusal::Wrong) }
    }
}

/// The machine that shows the code: what became of the code, over all connections.
pub struct Desk {
    code: Code,
    state: Result<(), Refusal>,
}

/// One connection to a desk, the share answered.
pub struct Attempt(Shared);

impl Desk {
    /// Shows a code. Times count from now on.
    pub fn new(code: Code) -> Desk {
        Desk { code, state: Ok(()) }
    }

    /// The code that is shown.
    pub fn code(&self) -> &Code {
        &self.code
    }

    /// Is the code still good, so long after it was shown?
    pub fn check(&self, age: Duration) -> Result<(), Refusal> {
        self.state?;
        if age >= LIFETIME { Err(Refusal::Expired) } else { Ok(()) }
    }

    /// Takes a share; the message is to be sent. It says nothing about the code.
    pub fn handle_share(
        &self,
        message: &Message,
        binding: &Binding,
        random: [u8; 32],
        age: Duration,
    ) -> Result<(Attempt, Message), Refusal> {
        self.check(age)?;
        let Message::Share(theirs) = message else { return Err(Refusal::Malformed) };
        let names = (Identity::new(ASKING), Identity::new(SHOWING));
        let (exchange, share) =
            Spake2::<Ed25519Group>::start_b_with_rng(&self.code.password(), &names.0, &names.1, Handed::new(random));
        let share = array(share);
        let key = exchange.finish(theirs).map_err(|_| Refusal::Malformed)?;
        Ok((Attempt(Shared::new(key, binding, theirs, &share)), Message::Share(share)))
    }

    /// Takes a proof. A right one uses the code up, a wrong one burns it; either way there is no other. Returns the name that the
    /// asking machine would go by, and the message to be sent once that machine is stored.
    pub fn handle_proof(
        &mut self,
        attempt: Attempt,
        message: &Message,
        own_name: Name,
        age: Duration,
    ) -> Result<(Name, Message), Refusal> {
        self.check(age)?;
        let Message::Proof(proof, name) = message else { return Err(Refusal::Malformed) };
        if !attempt.0.proves(PROOF_ASKING_CONTEXT, name, proof) {
            self.state = Err(Refusal::Burnt);
            return Err(Refusal::Wrong);
        }
        self.state = Err(Refusal::Used);
        let proof = attempt.0.proof(PROOF_SHOWING_CONTEXT, &own_name);
        Ok((name.clone(), Message::Proof(*proof.as_bytes(), own_name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Duration = Duration::from_secs(1);

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn binding(asking: u8, showing: u8, exported: u8) -> Binding {
        let [asking, showing] = [asking, showing].map(|key| PublicKey::from_bytes([key; 32]));
        Binding { asking, showing, exported: [exported; 32] }
    }

    fn code(number: u64) -> Code {
        Code::from_random(number.to_le_bytes())
    }

    /// The conversation, with what each side takes for the truth, at a desk of a certain age.
    fn converse(
        desk: &mut Desk,
        typed: &Code,
        asks: Binding,
        shows: Binding,
        age: Duration,
    ) -> (Result<Name, Refusal>, Result<Name, Refusal>) {
        let (asking, share) = Asking::start(typed, asks, [1; 32]);
        let (attempt, answer) = match desk.handle_share(&again(&share), &shows, [2; 32], age) {
            Ok(next) => next,
            Err(refusal) => return (Err(refusal), Err(refusal)),
        };
        let (proven, proof) = asking.handle_share(&again(&answer), name("laptop")).unwrap();
        match desk.handle_proof(attempt, &again(&proof), name("server"), age) {
            Ok((theirs, proof)) => (proven.handle_proof(&again(&proof)), Ok(theirs)),
            Err(refusal) => (Err(refusal), Err(refusal)),
        }
    }

    /// Through the wire and back.
    fn again(message: &Message) -> Message {
        Message::decode(&message.encode()).unwrap()
    }

    #[test]
    fn both_learn_the_other_name_with_the_same_code() {
        let mut desk = Desk::new(code(1_234_567));
        let ends = binding(1, 2, 3);
        assert_eq!(converse(&mut desk, &code(1_234_567), ends, ends, NOW), (Ok(name("server")), Ok(name("laptop"))));
        assert_eq!(converse(&mut desk, &code(1_234_567), ends, ends, NOW).1, Err(Refusal::Used));
    }

    #[test]
    fn one_wrong_guess_burns_the_code() {
        let mut desk = Desk::new(code(1));
        let ends = binding(1, 2, 3);
        assert_eq!(converse(&mut desk, &code(2), ends, ends, NOW).1, Err(Refusal::Wrong));
        assert_eq!(converse(&mut desk, &code(1), ends, ends, NOW).1, Err(Refusal::Burnt));
    }

    #[test]
    fn what_the_ends_see_differently_is_a_wrong_guess() {
        for seen in [binding(9, 2, 3), binding(1, 9, 3), binding(1, 2, 9)] {
            let mut desk = Desk::new(code(1));
            assert_eq!(converse(&mut desk, &code(1), binding(1, 2, 3), seen, NOW).1, Err(Refusal::Wrong));
            assert_eq!(desk.check(NOW), Err(Refusal::Burnt));
        }
    }

    #[test]
    fn a_code_is_good_for_ten_minutes() {
        let mut desk = Desk::new(code(1));
        let ends = binding(1, 2, 3);
        assert_eq!(converse(&mut desk, &code(1), ends, ends, LIFETIME).1, Err(Refusal::Expired));
        assert!(converse(&mut desk, &code(1), ends, ends, LIFETIME - NOW).1.is_ok());
        let desk = Desk::new(code(1));
        let (asking, share) = Asking::start(&code(1), ends, [1; 32]);
        let (attempt, answer) = desk.handle_share(&share, &ends, [2; 32], NOW).unwrap();
        let (_, proof) = asking.handle_share(&answer, name("a")).unwrap();
        let mut desk = desk;
        assert_eq!(desk.handle_proof(attempt, &proof, name("b"), LIFETIME).unwrap_err(), Refusal::Expired);
    }

    #[test]
    fn a_changed_name_or_a_reflected_message_is_noticed() {
        let ends = binding(1, 1, 3);
        let mut desk = Desk::new(code(1));
        let (asking, share) = Asking::start(&code(1), ends, [1; 32]);
        let (attempt, answer) = desk.handle_share(&share, &ends, [2; 32], NOW).unwrap();
        let (proven, proof) = asking.handle_share(&answer, name("a")).unwrap();
        assert_eq!(proven.handle_proof(&proof), Err(Refusal::Wrong), "a proof does not come back as its own answer");
        let Message::Proof(bytes, _) = proof else { panic!("no proof") };
        let renamed = Message::Proof(bytes, name("b"));
        assert_eq!(desk.handle_proof(attempt, &renamed, name("c"), NOW).unwrap_err(), Refusal::Wrong);
        let (asking, share) = Asking::start(&code(1), ends, [1; 32]);
        assert_eq!(asking.handle_share(&share, name("a")).err(), Some(Refusal::Malformed), "a share of the same side");
    }

    #[test]
    fn messages_out_of_order_change_nothing() {
        let ends = binding(1, 2, 3);
        let mut desk = Desk::new(code(1));
        let (asking, share) = Asking::start(&code(1), ends, [1; 32]);
        assert_eq!(desk.handle_share(&Message::Stored, &ends, [2; 32], NOW).err(), Some(Refusal::Malformed));
        let (attempt, _) = desk.handle_share(&share, &ends, [2; 32], NOW).unwrap();
        assert_eq!(desk.handle_proof(attempt, &share, name("a"), NOW).err(), Some(Refusal::Malformed));
        assert_eq!(asking.handle_share(&Message::Stored, name("a")).err(), Some(Refusal::Malformed));
        assert_eq!(desk.check(NOW), Ok(()));
    }

    #[test]
    fn a_code_is_typed_as_people_do() {
        let shown = code(1_234_567).to_string();
        assert_eq!(shown, "1234-5671");
        for typed in [shown.clone(), shown.replace('-', ""), shown.replace('-', " ")] {
            assert_eq!(typed.parse(), Ok(code(1_234_567)));
        }
        for wrong in ["", "1234567", "1234-567x", "123456789", "1234-5678-", &"1".repeat(99), "１234-5671"] {
            assert!(wrong.parse::<Code>().is_err(), "{wrong}");
        }
        assert_eq!(format!("{:?}", code(1)), "Code(…)");
    }

    proptest! {
        #[test]
        fn a_wrong_digit_and_exchanged_neighbours_are_noticed(random in any::<[u8; 8]>(), at in 0_usize..8, digit in 0_u8..10) {
            let code = Code::from_random(random);
            prop_assert_eq!(code.to_string().parse(), Ok(code.clone()));
            let mut wrong = code.clone();
            wrong.0[at] = digit;
            prop_assert_eq!(wrong.to_string().parse::<Code>().is_ok(), wrong == code);
            let mut swapped = code.clone();
            swapped.0.swap(at, (at + 1).min(7));
            prop_assert_eq!(swapped.to_string().parse::<Code>().is_ok(), swapped == code);
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..120), kind in 0_u8..5) {
            for bytes in [bytes.clone(), [&[kind, bytes.len() as u8][..], &bytes].concat()] {
                if let Ok(message) = Message::decode(&bytes) {
                    prop_assert_eq!(message.encode(), bytes);
                }
            }
        }

        #[test]
        fn any_share_is_taken_or_refused(share in any::<[u8; 32]>(), side in any::<bool>(), proof in any::<[u8; 32]>()) {
            let share = Message::Share(array([&[if side { b'A' } else { b'B' }][..], &share].concat()));
            let ends = binding(1, 2, 3);
            let mut desk = Desk::new(code(1));
            if let Ok((attempt, _)) = desk.handle_share(&share, &ends, [2; 32], NOW) {
                let made_up = Message::Proof(proof, name("a"));
                prop_assert_eq!(desk.handle_proof(attempt, &made_up, name("b"), NOW).err(), Some(Refusal::Wrong));
            }
            let (asking, _) = Asking::start(&code(1), ends, [1; 32]);
            if let Ok((proven, _)) = asking.handle_share(&share, name("a")) {
                prop_assert_eq!(proven.handle_proof(&Message::Proof(proof, name("b"))), Err(Refusal::Wrong));
            }
        }
    }
}
