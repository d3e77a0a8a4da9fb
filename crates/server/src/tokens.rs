//! Tokens: who may speak to a router. What is kept of one is its hash, so that the file gives nobody away.
//!
//! ```text
//! DIR/tokens       `sheaf tokens 1`, then a line a token: id, role, app (`*`: all), seconds since 1970, BLAKE3 of the token,
//!                  and where it expires the seconds since 1970 then;
//!                  replaced as a whole (written aside, synced, renamed), readable by the owner only
//! DIR/tokens.lock  held (flock) while the file is changed
//! ```
//!
//! A router may run meanwhile or not: it looks for itself whether the file is another one (`gate`).

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sheaf_roles::port::Principal;

use crate::datadir::random;

/// Tokens that a router keeps. Full: one must be revoked before the next is made.
pub const TOKENS_MAX: usize = 10_000;

/// What every token begins with.
pub const TOKEN_PREFIX: &str = "sheaf_";

/// Bytes of the name of an app.
pub const APP_BYTES_MAX: usize = 64;

/// A token as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Its name: no secret.
    pub id: String,
    /// Whom it speaks for.
    pub principal: Principal,
    /// When it was made, seconds since 1970.
    pub made_s: u64,
    /// From when on it is good for nothing, seconds since 1970; `None`: until it is revoked.
    pub expires_s: Option<u64>,
    /// What the token hashes to; comparing it takes the same time wherever the first difference is.
    pub(crate) hash: blake3::Hash,
}

/// A token itself: shown once, to whoever made it.
pub struct TokenSecret(String);

/// Why tokens cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    /// The file is not what this program writes.
    #[error("{path} is damaged in line {line}: restore it, or remove it and make every token anew")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        line: usize,
    },
    /// There are too many.
    #[error("there are {TOKENS_MAX} tokens already: revoke one first (sheaf token ls, sheaf token revoke ID)")]
    Full,
    /// The file system said no.
    #[error("cannot {act} {path}: {error}")]
    Io {
        /// What was tried.
        act: &'static str,
        /// On what.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
}

impl Token {
    /// Whether its time is over.
    pub fn has_expired(&self, now_s: u64) -> bool {
        self.expires_s.is_some_and(|expires_s| now_s >= expires_s)
    }
}

/// Seconds since 1970.
pub fn now_s() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl TokenSecret {
    pub(crate) fn random() -> io::Result<Self> {
        let mut bytes = [0; 32];
        random(&mut bytes)?;
        Ok(Self(format!("{TOKEN_PREFIX}{}", hex(&bytes))))
    }

    /// As it is to be written down.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    pub(crate) fn hash(&self) -> blake3::Hash {
        blake3::hash(self.0.as_bytes())
    }
}

/// Whether an app may be named so: letters, digits, `.`, `_` and `-`.
pub fn is_app(name: &str) -> bool {
    let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=APP_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_fit)
}

/// Every token of this data directory, in the order in which they were made.
pub fn tokens(dir: &Path) -> Result<Vec<Token>, TokensError> {
    let path = dir.join(FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(TokensError::Io { act: "read", path, error }),
    };
    parse(&text).map_err(|line| TokensError::Damaged { path, line })
}

/// Makes one, good for so long. The directory need not be there yet.
pub fn create_token(
    dir: &Path,
    principal: Principal,
    good_for: Option<Duration>,
) -> Result<(Token, TokenSecret), TokensError> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io_error("create", dir))?;
    let _held = lock(dir)?;
    let mut tokens = tokens(dir)?;
    if tokens.len() >= TOKENS_MAX {
        return Err(TokensError::Full);
    }
    let secret = TokenSecret::random().map_err(io_error("read", Path::new("/dev/urandom")))?;
    let made_s = now_s();
    let expires_s = good_for.map(|good_for| made_s.saturating_add(good_for.as_secs()));
    let mut id = [0; 4];
    loop {
        random(&mut id).map_err(io_error("read", Path::new("/dev/urandom")))?;
        if tokens.iter().all(|token| token.id != hex(&id)) {
            break;
        }
    }
    let token = Token { id: hex(&id), principal, made_s, expires_s, hash: secret.hash() };
    tokens.push(token.clone());
    write(dir, &tokens)?;
    Ok((token, secret))
}

/// Revokes one; `None`: there is no such token. A router that runs notices within a second or two.
pub fn revoke_token(dir: &Path, id: &str) -> Result<Option<Token>, TokensError> {
    if !dir.join(FILE).exists() {
        return Ok(None);
    }
    let _held = lock(dir)?;
    let mut tokens = tokens(dir)?;
    let Some(at) = tokens.iter().position(|token| token.id == id) else { return Ok(None) };
    let revoked = tokens.remove(at);
    write(dir, &tokens)?;
    Ok(Some(revoked))
}

/// In the data directory.
pub(crate) const FILE: &str = "tokens";

const HEAD: &str = "sheaf tokens 1";

fn parse(text: &str) -> Result<Vec<Token>, usize> {
    let mut lines = text.lines().zip(1..);
    if lines.next().is_none_or(|(line, _)| line != HEAD) {
        return Err(1);
    }
    lines.map(|(line, number)| parse_line(line).ok_or(number)).collect()
}

fn parse_line(line: &str) -> Option<Token> {
    let mut words = line.split(' ');
    let (id, role, app) = (words.next()?, words.next()?, words.next()?);
    let (made_s, hash) = (words.next()?.parse().ok()?, blake3::Hash::from_hex(words.next()?).ok()?);
    let principal = match (role, app) {
        ("client", app) if is_app(app) => Principal::Client(app.to_owned()),
        ("worker", "*") => Principal::Worker,
        ("admin", "*") => Principal::Admin,
        _ => return None,
    };
    let expires_s = words.next().map(str::parse).transpose().ok()?;
    words.next().is_none().then(|| Token { id: id.to_owned(), principal, made_s, expires_s, hash })
}

/// The words for a role and an app.
pub fn role_and_app(principal: &Principal) -> (&'static str, &str) {
    match principal {
        Principal::Owner => ("owner", "*"),
        Principal::Client(app) => ("client", app),
        Principal::Worker => ("worker", "*"),
        Principal::Admin => ("admin", "*"),
    }
}

fn write(dir: &Path, tokens: &[Token]) -> Result<(), TokensError> {
    let mut text = format!("{HEAD}\n");
    for Token { id, principal, made_s, expires_s, hash } in tokens {
        let (role, app) = role_and_app(principal);
        let expires = expires_s.map(|expires_s| format!(" {expires_s}")).unwrap_or_default();
        text.push_str(&format!("{id} {role} {app} {made_s} {}{expires}\n", hash.to_hex()));
    }
    write_private(dir, FILE, &text).map_err(io_error("write", &dir.join(FILE)))
}

/// Replaces a file as a whole; its owner alone may read it.
pub(crate) fn write_private(dir: &Path, name: &str, text: &str) -> io::Result<()> {
    let aside = dir.join(format!("{name}.new"));
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&aside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&aside, dir.join(name))?;
    File::open(dir)?.sync_all()
}

/// Held until it is dropped, or the process dies.
fn lock(dir: &Path) -> Result<File, TokensError> {
    let path = dir.join("tokens.lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
    let file = file.map_err(io_error("open", &path))?;
    file.lock().map_err(io_error("lock", &path))?;
    Ok(file)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn io_error(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> TokensError {
    let path = path.to_owned();
    move |error| TokensError::Io { act, path, error }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_kept_of_a_token_is_no_token() {
        let dir = tempfile::tempdir().unwrap();
        let (made, secret) = create_token(dir.path(), Principal::Client("a".to_owned()), None).unwrap();
        let good_for = Some(Duration::from_secs(60));
        let (other, _) = create_token(dir.path(), Principal::Worker, good_for).unwrap();
        assert!(!other.has_expired(other.made_s + 59) && other.has_expired(other.made_s + 60));
        assert!(!made.has_expired(u64::MAX));
        assert_eq!(tokens(dir.path()).unwrap(), [made.clone(), other.clone()]);
        let file = dir.path().join(FILE);
        assert!(!fs::read_to_string(&file).unwrap().contains(secret.reveal().trim_start_matches("sheaf_")));
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(revoke_token(dir.path(), &made.id).unwrap(), Some(made.clone()));
        assert_eq!(revoke_token(dir.path(), &made.id).unwrap(), None);
        assert_eq!(tokens(dir.path()).unwrap(), [other]);
    }

    #[test]
    fn a_damaged_file_grants_nothing_and_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        create_token(dir.path(), Principal::Admin, None).unwrap();
        let file = dir.path().join(FILE);
        let whole = fs::read_to_string(&file).unwrap();
        for (damaged, at) in [
            (whole.replace("admin *", "admin a"), 2),
            (format!("{} soon\n", whole.trim_end()), 2),
            (format!("{} 1 2\n", whole.trim_end()), 2),
            (whole.replace(" * ", " "), 2),
            (format!("{whole}x"), 3),
            (whole.replace("tokens 1", "tokens 2"), 1),
            (String::new(), 1),
        ] {
            fs::write(&file, &damaged).unwrap();
            assert!(matches!(tokens(dir.path()), Err(TokensError::Damaged { line, .. }) if line == at), "{damaged}");
            assert!(create_token(dir.path(), Principal::Worker, None).is_err());
            assert_eq!(fs::read_to_string(&file).unwrap(), damaged);
        }
    }

    #[test]
    fn makers_at_the_same_time_lose_no_token() {
        let dir = tempfile::tempdir().unwrap();
        let make = || (0..10).for_each(|_| drop(create_token(dir.path(), Principal::Worker, None).unwrap()));
        std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(make))));
        assert_eq!(tokens(dir.path()).unwrap().len(), 40);
    }
}
