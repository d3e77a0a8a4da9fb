//! From the words about tokens and certificates to what is shown and believed. A token is read here, and never said.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use sheaf_net::authority::{Authority, own_names};
use sheaf_net::{NetError, Target, tls};
use sheaf_server::Access;
use sheaf_session::Auth;

use crate::args::{AccessArgs, LoginArgs};

/// The variable that holds a token where no file does. Programs of a worker do not inherit it.
const TOKEN_VARIABLE: &str = "SHEAF_TOKEN";

/// A token is shorter than this: the greeting that it travels in is short.
const TOKEN_BYTES_MAX: usize = 256;

/// The router at an address, as this user speaks to it.
pub(crate) async fn target_of(addr: &str, login: &LoginArgs) -> Result<Target> {
    let token = match file_token(login)? {
        Some(token) => token,
        None => variable_token()?,
    };
    if login.ca.is_some() && !Target::is_tls(addr) {
        bail!("--ca says whom to trust behind sheaf://HOST:PORT, and {addr} has no TLS");
    }
    Ok(Target::remote(addr, login.ca.as_deref(), token).await?)
}

/// The router that runs on a data directory: whoever can read that needs no token for it.
pub(crate) async fn target_on(dir: &Path, addr: &str, login: &LoginArgs) -> Result<Target> {
    let token = match file_token(login)? {
        Some(token) => token,
        // SHEAF_TOKEN may be another router's, and one that asks for nothing refuses what it does not know.
        None => sheaf_server::operator_auth(dir).unwrap_or_default(),
    };
    let own = dir.join(TLS_DIR).join("ca.pem");
    let own = if Target::is_tls(addr) && own.exists() { Some(own) } else { None };
    let ca = login.ca.as_ref().or(own.as_ref());
    Ok(Target::remote(addr, ca.map(AsRef::as_ref), token).await?)
}

/// Where no router is joined, nothing is shown to one.
pub(crate) fn insist_unused(login: &LoginArgs) -> Result<()> {
    match (&login.token_file, &login.ca) {
        (Some(_), _) => bail!("--token-file is shown to the router of --join ADDR, and none is given"),
        (None, Some(_)) => bail!(
            "--ca says whom to trust behind --join sheaf://HOST:PORT, and none is given; behind https:// it is --backend-ca"
        ),
        (None, None) => Ok(()),
    }
}

fn file_token(login: &LoginArgs) -> Result<Option<Auth>> {
    let Some(file) = &login.token_file else { return Ok(None) };
    let text = fs::read_to_string(file).with_context(|| format!("cannot read the token in {}", file.display()))?;
    let token =
        parse_token(&text).with_context(|| format!("{} holds no token: it should be one line", file.display()))?;
    Ok(Some(token))
}

fn variable_token() -> Result<Auth> {
    let Some(text) = std::env::var_os(TOKEN_VARIABLE).filter(|text| !text.is_empty()) else {
        return Ok(Auth::default());
    };
    let token = text.to_str().and_then(parse_token);
    token.with_context(|| format!("{TOKEN_VARIABLE} holds no token: it should be one word"))
}

fn parse_token(text: &str) -> Option<Auth> {
    let text = text.trim();
    let is_word = text.bytes().all(|byte| byte.is_ascii_graphic());
    (is_word && (1..=TOKEN_BYTES_MAX).contains(&text.len())).then(|| Auth(text.to_owned().into()))
}

/// Where a router keeps its own authority, in its data directory.
const TLS_DIR: &str = "tls";

/// Whom a router lets in. Where it listens elsewhere than on loopback, there is TLS.
pub(crate) async fn access_of(listen: &str, data: &Path, args: &AccessArgs) -> Result<Access> {
    let is_far = matches!(Target::tcp(listen).await, Err(NetError::NotLoopback { .. }));
    let tls = match (&args.tls_cert, &args.tls_key) {
        (Some(cert), Some(key)) => Some(tls::server_config(cert, key)?),
        _ if args.tls || is_far => {
            let mut names = own_names(listen);
            names.extend(args.tls_names.iter().cloned());
            let authority = Authority::open(&data.join(TLS_DIR))?;
            let config = authority.server_config(&names).context("see --tls-name")?;
            eprintln!("sheaf: TLS for {}; trust it with: --ca {}", names.join(", "), authority.path().display());
            Some(config)
        }
        _ => None,
    };
    Ok(Access { tls, require_token: args.require_token })
}

/// A name in no certificate is a mistake.
pub(crate) fn insist_names_used(args: &AccessArgs, is_tls: bool) -> Result<()> {
    if !is_tls && !args.tls_names.is_empty() {
        bail!("--tls-name names the router in its certificate: say --tls, too");
    }
    Ok(())
}
