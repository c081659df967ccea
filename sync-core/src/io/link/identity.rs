//! A machine's key: made once, kept in its home folder, and shown to others in a certificate that says nothing else.

use crate::io::home::{Access, Home, HomeError};
use crate::peer::{Id, PublicKey};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ED25519};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::fmt;

/// PKCS #8, DER (RFC 5958, RFC 8410).
const FILE: &str = "identity.key";

/// What can go wrong with a key.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The folder or the file.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// Not a key, or none can be made.
    #[error("cannot {what}: {why}")]
    Key {
        /// What was attempted.
        what: String,
        /// Why not.
        why: String,
    },
}

/// A machine's private key and what others see of it.
pub struct Identity {
    key: PublicKey,
    private: PrivatePkcs8KeyDer<'static>,
    certificate: CertificateDer<'static>,
}

impl Identity {
    /// The key of this home folder, made on first use. A file that others may read is refused.
    pub fn open(home: &Home) -> Result<Identity, IdentityError> {
        if let Some(bytes) = home.read(FILE, Access::Private)? {
            return Identity::decode(home, bytes);
        }
        let _lock = home.lock()?;
        // Another process may have made it meanwhile.
        if let Some(bytes) = home.read(FILE, Access::Private)? {
            return Identity::decode(home, bytes);
        }
        let identity = Identity::generate()?;
        home.write(FILE, identity.private.secret_pkcs8_der())?;
        Ok(identity)
    }

    /// A key that is kept nowhere.
    pub fn generate() -> Result<Identity, IdentityError> {
        let pair = KeyPair::generate_for(&PKCS_ED25519).map_err(failed("make a key"))?;
        Identity::new(pair)
    }

    fn decode(home: &Home, bytes: Vec<u8>) -> Result<Identity, IdentityError> {
        let what = || format!("read a key from {}", home.folder().join(FILE).display());
        let pair = KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(bytes), &PKCS_ED25519);
        Identity::new(pair.map_err(failed(&what()))?)
    }

    fn new(pair: KeyPair) -> Result<Identity, IdentityError> {
        let key: [u8; 32] = pair.public_key_raw().try_into().map_err(failed("use a key that is not Ed25519"))?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let certificate = params.self_signed(&pair).map_err(failed("make a certificate"))?;
        let private = PrivatePkcs8KeyDer::from(pair.serialize_der());
        Ok(Identity { key: PublicKey::from_bytes(key), private, certificate: certificate.der().clone() })
    }

    /// The public key.
    pub fn key(&self) -> PublicKey {
        self.key
    }

    /// By what other machines know this one.
    pub fn id(&self) -> Id {
        self.key.id()
    }

    pub(super) fn certificate(&self) -> CertificateDer<'static> {
        self.certificate.clone()
    }

    pub(super) fn private(&self) -> PrivateKeyDer<'static> {
        self.private.clone_key().into()
    }
}

fn failed<E: fmt::Display>(what: &str) -> impl FnOnce(E) -> IdentityError + use<E> {
    let what = what.to_owned();
    move |error| IdentityError::Key { what, why: error.to_string() }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;
    use std::thread;

    #[test]
    fn a_key_is_made_once_and_for_the_user_alone() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(dir.path()).unwrap();
        let first = Identity::open(&home).unwrap();
        assert_eq!(Identity::open(&home).unwrap().key(), first.key());
        assert_eq!(dir.path().join(FILE).metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_ne!(Identity::generate().unwrap().id(), first.id());
        assert!(!format!("{first:?}").contains("private"));
    }

    #[test]
    fn two_that_come_first_at_the_same_time_get_the_same_key() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(dir.path()).unwrap();
        let ids: Vec<Id> = thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| Identity::open(&home).unwrap().id())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    }

    #[test]
    fn a_key_that_others_may_read_or_that_is_none_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(dir.path()).unwrap();
        let id = Identity::open(&home).unwrap().id();
        let file = dir.path().join(FILE);
        for mode in [0o644, 0o640, 0o604, 0o660] {
            fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
            let error = Identity::open(&home).unwrap_err().to_string();
            assert!(error.contains(&format!("{mode:04o}")) && error.contains("chmod 600"), "{error}");
        }
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        assert_eq!(Identity::open(&home).unwrap().id(), id);
        fs::write(&file, b"no key").unwrap();
        assert!(Identity::open(&home).unwrap_err().to_string().contains("cannot read a key from"));
        assert_eq!(fs::read(&file).unwrap(), b"no key", "never replaced");
    }

    #[test]
    fn the_certificate_carries_the_key() {
        let identity = Identity::generate().unwrap();
        let certificate = identity.certificate();
        let parsed = rustls::server::ParsedCertificate::try_from(&certificate).unwrap();
        assert_eq!(PublicKey::decode_spki(&parsed.subject_public_key_info()), Some(identity.key()));
    }
}
