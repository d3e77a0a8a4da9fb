//! Who is let in: decides for each connection whom it speaks for, before anything of it reaches the machine.
//!
//! It deliberately says nothing of what somebody may do: that is the port's. Invariant: what a dialer showed is hashed,
//! compared and dropped; it is in no message and no log.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sheaf_net::Origin;
use sheaf_roles::port::Principal;
use sheaf_session::Auth;

use crate::tokens::{FILE, Token, TokenSecret, TokensError, now_s, tokens, write_private};

/// No session of a token goes on for longer on the word of one look at the file of tokens.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(1);

/// In the data directory, while a router runs that asks for tokens: what its own operator shows.
const OPERATOR: &str = "operator";

/// The tokens of a data directory, for another listener of this process.
pub struct TokenBook(Gate);

impl TokenBook {
    /// Reads them.
    pub fn open(dir: &Path) -> Result<Self, TokensError> {
        Gate::open(dir, false).map(Self)
    }

    /// There are tokens of these that are good.
    pub fn has_tokens_of(&self, is_wanted: impl Fn(&Principal) -> bool) -> bool {
        self.0.good().any(|token| is_wanted(&token.principal))
    }

    /// The apps that have a client's token, by the file as it is now.
    pub fn apps(&mut self) -> BTreeSet<String> {
        self.0.look();
        let clients = self.0.known.iter().filter(|token| matches!(token.principal, Principal::Client(_)));
        clients.map(|token| token.principal.app().to_owned()).collect()
    }

    /// Whom a token speaks for; `None`: there is no such token, by the file as it is now.
    pub fn principal(&mut self, token: &[u8]) -> Option<Principal> {
        self.0.look();
        self.0.find(blake3::hash(token)).map(|token| token.principal.clone())
    }
}

/// Whom a connection speaks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pass {
    pub(crate) principal: Principal,
    /// The token, by its id; `None`: it needed none.
    pub(crate) token: Option<String>,
}

/// The tokens as they were when last looked at.
pub(crate) struct Gate {
    dir: PathBuf,
    /// Nobody from outside is let in without a token.
    is_strict: bool,
    operator: Option<blake3::Hash>,
    known: Vec<Token>,
    /// Which file `known` is of.
    stamp: Option<Stamp>,
    /// Tokens that were shown after their time, by their ids: those of the file.
    said_expired: BTreeSet<String>,
}

/// Tells one state of a file from the next: each is a new file.
type Stamp = (u64, i64, i64, u64);

impl Gate {
    /// Reads the tokens. One that is strict also lets in whoever can read a fresh secret in the data directory.
    pub(crate) fn open(dir: &Path, is_strict: bool) -> Result<Self, TokensError> {
        let stamp = stamp(dir);
        let known = tokens(dir)?;
        let operator = if is_strict { operator(dir) } else { None };
        Ok(Self { dir: dir.to_owned(), is_strict, operator, known, stamp, said_expired: BTreeSet::new() })
    }

    /// There are tokens that are good.
    pub(crate) fn has_tokens(&self) -> bool {
        self.good().next().is_some()
    }

    fn good(&self) -> impl Iterator<Item = &Token> {
        let now_s = now_s();
        self.known.iter().filter(move |token| !token.has_expired(now_s))
    }

    /// Whom a connection speaks for; `None`: it is not let in.
    pub(crate) fn admit(&mut self, origin: &Origin, auth: &Auth) -> Option<Pass> {
        let free = |principal| Some(Pass { principal, token: None });
        match origin {
            Origin::Process(Some(app)) => free(Principal::Client(app.to_string())),
            Origin::Process(None) => free(Principal::Owner),
            Origin::Socket if auth.0.is_empty() && !self.is_strict => free(Principal::Owner),
            Origin::Socket if auth.0.is_empty() => None,
            Origin::Socket => {
                let hash = blake3::hash(&auth.0);
                if self.operator == Some(hash) {
                    return free(Principal::Owner);
                }
                // Asking for the file's state costs less than the connection that it is asked for; reading it is rare.
                self.look();
                let token = self.find(hash)?;
                Some(Pass { principal: token.principal.clone(), token: Some(token.id.clone()) })
            }
        }
    }

    /// The token that hashes so, while it is good. That one has expired is said once, whoever goes on showing it.
    fn find(&mut self, hash: blake3::Hash) -> Option<&Token> {
        let token = self.known.iter().find(|token| token.hash == hash)?;
        if token.has_expired(now_s()) {
            if self.said_expired.insert(token.id.clone()) {
                tracing::warn!(token = token.id, "a token that has expired is refused");
            }
            return None;
        }
        Some(token)
    }

    /// Whether a session that was let in so may go on.
    pub(crate) fn holds(&self, pass: &Pass) -> bool {
        let now_s = now_s();
        pass.token.as_ref().is_none_or(|id| self.known.iter().any(|token| token.id == *id && !token.has_expired(now_s)))
    }

    /// Looks at the file again if it is another one. Of a file that cannot be read nothing holds: a token that was revoked
    /// in it must not go on.
    pub(crate) fn look(&mut self) {
        let stamp = stamp(&self.dir);
        if stamp == self.stamp {
            return;
        }
        self.stamp = stamp;
        match tokens(&self.dir) {
            Ok(known) => {
                tracing::debug!(tokens = known.len(), "the tokens have changed");
                self.said_expired.retain(|id| known.iter().any(|token| token.id == *id));
                self.known = known;
            }
            Err(error) => {
                tracing::error!(%error, "no token is taken until the file of tokens can be read");
                self.known = Vec::new();
            }
        }
    }
}

fn stamp(dir: &Path) -> Option<Stamp> {
    let meta = fs::metadata(dir.join(FILE)).ok()?;
    Some((meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.len()))
}

/// What an operator who can read the data directory shows, until the next start. A disk that does not take it is no reason
/// not to start: operators then need a token, as others do.
fn operator(dir: &Path) -> Option<blake3::Hash> {
    let make = || -> io::Result<blake3::Hash> {
        let secret = TokenSecret::random()?;
        write_private(dir, OPERATOR, secret.reveal())?;
        Ok(secret.hash())
    };
    match make() {
        Ok(hash) => Some(hash),
        Err(error) => {
            tracing::error!(%error, "commands on the data directory need a token: theirs cannot be written");
            None
        }
    }
}

/// What a command shows to the router that runs on this data directory; `None`: it asks for nothing.
pub fn operator_auth(dir: &Path) -> Option<Auth> {
    let text = fs::read(dir.join(OPERATOR)).ok()?;
    Some(Auth(text.into()))
}

/// Takes the secret of an earlier start away: it would not be taken, and none is asked for.
pub(crate) fn forget_operator(dir: &Path) -> io::Result<()> {
    match fs::remove_file(dir.join(OPERATOR)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use sheaf_roles::port::Principal;

    use super::*;
    use crate::tokens::{create_token, revoke_token};

    fn auth(text: &str) -> Auth {
        Auth(text.to_owned().into())
    }

    #[test]
    fn a_gate_that_is_strict_lets_nobody_in_from_outside_without_a_token() {
        let dir = tempfile::tempdir().unwrap();
        let (token, secret) = create_token(dir.path(), Principal::Worker, None).unwrap();
        let mut gate = Gate::open(dir.path(), true).unwrap();
        for wrong in ["", "sheaf_", &token.id, &secret.reveal()[..69], &token.hash.to_hex()] {
            assert_eq!(gate.admit(&Origin::Socket, &auth(wrong)), None, "{wrong}");
        }
        let pass = gate.admit(&Origin::Socket, &auth(secret.reveal())).unwrap();
        assert_eq!(pass, Pass { principal: Principal::Worker, token: Some(token.id) });
        let own = gate.admit(&Origin::Process(Some("a".into())), &auth(""));
        assert_eq!(own.unwrap().principal, Principal::Client("a".to_owned()));
        let operator = operator_auth(dir.path()).unwrap();
        assert_eq!(gate.admit(&Origin::Socket, &operator).unwrap().principal, Principal::Owner);
        let mut next = Gate::open(dir.path(), true).unwrap();
        assert_eq!(next.admit(&Origin::Socket, &operator), None, "of an earlier start");
    }

    #[test]
    fn tokens_come_and_go_while_it_is_open() {
        let dir = tempfile::tempdir().unwrap();
        let mut gate = Gate::open(dir.path(), false).unwrap();
        assert_eq!(gate.admit(&Origin::Socket, &auth("")).unwrap().principal, Principal::Owner);
        let (token, secret) = create_token(dir.path(), Principal::Admin, None).unwrap();
        let pass = gate.admit(&Origin::Socket, &auth(secret.reveal())).unwrap();
        assert!(gate.holds(&pass));
        revoke_token(dir.path(), &token.id).unwrap();
        assert_eq!(gate.admit(&Origin::Socket, &auth(secret.reveal())), None);
        assert!(!gate.holds(&pass));
    }

    #[test]
    fn a_token_ends_when_its_time_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let (token, secret) = create_token(dir.path(), Principal::Admin, Some(Duration::from_secs(3_600))).unwrap();
        let mut gate = Gate::open(dir.path(), true).unwrap();
        let pass = gate.admit(&Origin::Socket, &auth(secret.reveal())).unwrap();
        assert!(gate.has_tokens() && gate.holds(&pass));
        let (now, then) = (format!(" {}", token.made_s), format!(" {}", token.made_s + 3_600));
        let file = fs::read_to_string(dir.path().join(FILE)).unwrap();
        write_private(dir.path(), FILE, &file.replace(&then, &now)).unwrap();
        assert_eq!(gate.admit(&Origin::Socket, &auth(secret.reveal())), None);
        assert!(!gate.has_tokens() && !gate.holds(&pass));
    }

    #[test]
    fn a_file_that_cannot_be_read_grants_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (_, secret) = create_token(dir.path(), Principal::Admin, None).unwrap();
        let mut gate = Gate::open(dir.path(), true).unwrap();
        let pass = gate.admit(&Origin::Socket, &auth(secret.reveal())).unwrap();
        fs::write(dir.path().join(FILE), "nonsense").unwrap();
        gate.look();
        assert!(!gate.holds(&pass));
        assert!(Gate::open(dir.path(), true).is_err());
    }
}
