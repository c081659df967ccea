//! A machine's key and the short form that people compare: base32 in groups, with check characters.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What stands before the 32 bytes of an Ed25519 key in a SubjectPublicKeyInfo (RFC 8410, section 4).
const SPKI_HEAD: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// RFC 4648: no digit that looks like a letter.
const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
/// Bytes of the fingerprint: a second key with the same one costs 2^160 tries.
const FINGERPRINT: usize = 20;
/// Characters of the fingerprint, and those that check it.
const CHARS: usize = FINGERPRINT * 8 / 5;
const CHECK_CHARS: usize = 4;
/// Characters between two dashes.
const GROUP: usize = 6;
/// Text longer than this is no id, whatever it says.
const TEXT_BYTES: usize = 2 * (CHARS + CHECK_CHARS);
const FINGERPRINT_CONTEXT: &str = "driftless machine id 1";
const CHECK_CONTEXT: &str = "driftless machine id check 1";

/// An Ed25519 public key: who a machine is.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// The key as it is.
    pub fn from_bytes(bytes: [u8; 32]) -> PublicKey {
        PublicKey(bytes)
    }

    /// Its 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Decodes a SubjectPublicKeyInfo; `None` if it is not exactly that of an Ed25519 key.
    pub fn decode_spki(spki: &[u8]) -> Option<PublicKey> {
        let key = spki.strip_prefix(&SPKI_HEAD)?;
        Some(PublicKey(key.try_into().ok()?))
    }

    /// The SubjectPublicKeyInfo around it.
    pub fn encode_spki(&self) -> Vec<u8> {
        [&SPKI_HEAD[..], &self.0].concat()
    }

    /// The fingerprint by which the machine is known.
    pub fn id(&self) -> Id {
        let hash = blake3::derive_key(FINGERPRINT_CONTEXT, &self.encode_spki());
        let mut id = [0; FINGERPRINT];
        id.copy_from_slice(&hash[..FINGERPRINT]);
        Id(id)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.id())
    }
}

/// Why text is no id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Another number of characters, or other ones.
    #[error("an id has {} letters A-Z and digits 2-7 in groups of {GROUP}, as `driftless id` prints it", CHARS + CHECK_CHARS)]
    Form,
    /// The check characters belong to another id.
    #[error("the id has a typing error: its last characters do not fit the others")]
    Check,
}

/// The fingerprint of a machine's public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Id([u8; FINGERPRINT]);

impl Id {
    /// A fingerprint as it is.
    pub fn from_bytes(bytes: [u8; FINGERPRINT]) -> Id {
        Id(bytes)
    }

    /// The bytes of the fingerprint.
    pub fn as_bytes(&self) -> &[u8; FINGERPRINT] {
        &self.0
    }

    fn check(&self) -> [u8; CHECK_CHARS] {
        let hash = blake3::derive_key(CHECK_CONTEXT, &self.0);
        let mut check = [0; CHECK_CHARS];
        base32(&hash).zip(&mut check).for_each(|(char, place)| *place = char);
        check
    }
}

/// Groups of five bits as characters; a rest of fewer bits is dropped.
fn base32(bytes: &[u8]) -> impl Iterator<Item = u8> {
    let bit = move |at: usize| usize::from(bytes[at / 8] >> (7 - at % 8) & 1);
    (0..bytes.len() * 8 / 5).map(move |group| ALPHABET[(0..5).fold(0, |value, n| value << 1 | bit(group * 5 + n))])
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let chars = base32(&self.0).chain(self.check());
        let text: String = chars.enumerate().fold(String::new(), |mut text, (at, char)| {
            if at > 0 && at % GROUP == 0 {
                text.push('-');
            }
            text.push(char::from(char));
            text
        });
        f.write_str(&text)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Id({self})")
    }
}

impl FromStr for Id {
    type Err = IdError;

    /// Takes small letters, and other groups or none.
    fn from_str(text: &str) -> Result<Id, IdError> {
        if text.len() > TEXT_BYTES {
            return Err(IdError::Form);
        }
        let chars: Vec<u8> = text.bytes().filter(|b| !b"- ".contains(b)).map(|b| b.to_ascii_uppercase()).collect();
        let values: Option<Vec<usize>> = chars.iter().map(|char| ALPHABET.iter().position(|known| known == char)).collect();
        let values = values.filter(|values| values.len() == CHARS + CHECK_CHARS).ok_or(IdError::Form)?;
        let mut id = Id([0; FINGERPRINT]);
        for (at, byte) in id.0.iter_mut().enumerate() {
            let bit = |at: usize| values[at / 5] >> (4 - at % 5) & 1;
            *byte = (0..8).fold(0, |byte, n| byte << 1 | bit(at * 8 + n) as u8);
        }
        if id.check() != chars[CHARS..] { Err(IdError::Check) } else { Ok(id) }
    }
}

impl TryFrom<String> for Id {
    type Error = IdError;

    fn try_from(text: String) -> Result<Id, IdError> {
        text.parse()
    }
}

impl From<Id> for String {
    fn from(id: Id) -> String {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_text_of_an_id_stays_as_released() {
        let id = PublicKey::from_bytes([7; 32]).id();
        assert_eq!(id.to_string(), "TILNEB-NSBKXL-SRVPGA-X7XI7I-5YSVGV-YDMYSM");
    }

    #[test]
    fn text_that_is_no_id_is_refused() {
        let id = PublicKey::from_bytes([7; 32]).id().to_string();
        for wrong in
            ["", "A", &id[1..], &format!("{id}A"), &id.replace('-', "1"), &"A".repeat(1 << 20), &id.replacen('-', "é", 1)]
        {
            assert_eq!(wrong.parse::<Id>(), Err(IdError::Form));
        }
    }

    proptest! {
        #[test]
        fn an_id_comes_back_from_its_text(key in any::<[u8; 32]>(), small in any::<bool>(), groups in any::<bool>()) {
            let id = PublicKey::from_bytes(key).id();
            let mut text = id.to_string();
            prop_assert_eq!(text.len(), 41);
            if small { text = text.to_lowercase() }
            if !groups { text = text.replace('-', "") }
            prop_assert_eq!(text.parse::<Id>(), Ok(id));
        }

        #[test]
        fn one_wrong_character_is_noticed(key in any::<[u8; 32]>(), at in 0_usize..36, other in 0_usize..32) {
            let id = PublicKey::from_bytes(key).id();
            let mut text = id.to_string().replace('-', "").into_bytes();
            prop_assume!(text[at] != ALPHABET[other]);
            text[at] = ALPHABET[other];
            prop_assert_eq!(String::from_utf8(text).unwrap().parse::<Id>(), Err(IdError::Check));
        }

        #[test]
        fn any_text_and_any_key_are_decoded_or_refused(text in any::<String>(), spki in any::<Vec<u8>>(), key in any::<[u8; 32]>()) {
            let _ = text.parse::<Id>();
            prop_assert_eq!(PublicKey::decode_spki(&spki).map(|key| key.encode_spki()).unwrap_or(spki.clone()), spki);
            let key = PublicKey::from_bytes(key);
            prop_assert_eq!(PublicKey::decode_spki(&key.encode_spki()), Some(key));
        }
    }
}
