//! `sheaf token`: works on the data directory, whether a router runs there or not.

use anyhow::{Result, bail};
use sheaf_roles::port::Principal;
use sheaf_server::tokens::{APP_BYTES_MAX, Token, create_token, is_app, now_s, revoke_token, role_and_app, tokens};

use crate::args::{CreateArgs, RevokeArgs, RoleArg, TokenCommand, TokenDir};
use crate::out;

/// `sheaf token …`
pub(crate) fn token(command: &TokenCommand, json: bool) -> Result<u8> {
    match command {
        TokenCommand::Create(args) => create(args, json),
        TokenCommand::Ls(args) => list(args, json),
        TokenCommand::Revoke(args) => revoke(args),
    }?;
    Ok(0)
}

fn create(args: &CreateArgs, json: bool) -> Result<()> {
    let principal = match (args.role, args.app.as_deref()) {
        (RoleArg::Client, Some(app)) if is_app(app) => Principal::Client(app.to_owned()),
        (RoleArg::Client, Some(app)) => {
            bail!("`{app}` cannot name an app: take 1 to {APP_BYTES_MAX} letters, digits, dots, dashes and underscores")
        }
        (RoleArg::Client, None) => bail!("say whose jobs this client runs: --app APP"),
        (RoleArg::Worker, None | Some("*")) => Principal::Worker,
        (RoleArg::Admin, None | Some("*")) => Principal::Admin,
        (RoleArg::Worker, Some(_)) => {
            bail!(
                "a worker does the work of every app, and sees its rows: a token for one app cannot be kept to; leave out --app"
            )
        }
        (RoleArg::Admin, Some(_)) => bail!("an admin serves every app: leave out --app"),
    };
    let (token, secret) = create_token(&args.dir.data, principal, args.expires)?;
    if json {
        let mut shown = token_json(&token);
        shown["token"] = secret.reveal().into();
        out::line(shown)?;
    } else {
        let end = end(&token).map(|end| format!(", {end}")).unwrap_or_default();
        eprintln!("sheaf: token {} for {}{end}; it is shown this once:", token.id, describe(&token));
        out::line(secret.reveal())?;
    }
    Ok(())
}

fn list(args: &TokenDir, json: bool) -> Result<()> {
    let tokens = tokens(&args.data)?;
    for token in &tokens {
        if json {
            out::line(token_json(token))?;
        } else {
            let end = end(token).map(|end| format!(", {end}")).unwrap_or_default();
            out::line(format_args!("{}  {}, {}{end}", token.id, describe(token), age(token)))?;
        }
    }
    if tokens.is_empty() && !json {
        eprintln!(
            "sheaf: no tokens in {}; make one with: sheaf token create --role client --app APP",
            args.data.display()
        );
    }
    Ok(())
}

fn revoke(args: &RevokeArgs) -> Result<()> {
    let Some(token) = revoke_token(&args.dir.data, &args.id)? else {
        bail!("there is no token {} in {}; see: sheaf token ls", args.id, args.dir.data.display());
    };
    eprintln!("sheaf: token {} for {} is revoked", token.id, describe(&token));
    Ok(())
}

fn describe(token: &Token) -> String {
    match role_and_app(&token.principal) {
        (role, "*") => role.to_owned(),
        (role, app) => format!("{role} of app {app}"),
    }
}

fn age(token: &Token) -> String {
    match now_s().saturating_sub(token.made_s) / DAY_S {
        0 => "made today".to_owned(),
        1 => "made a day ago".to_owned(),
        days => format!("made {days} days ago"),
    }
}

/// When it ends, if it does by itself.
fn end(token: &Token) -> Option<String> {
    let (now_s, expires_s) = (now_s(), token.expires_s?);
    if token.has_expired(now_s) {
        return Some("expired: it is refused".to_owned());
    }
    Some(match expires_s - now_s {
        left if left < 2 * 3_600 => format!("expires in {} minutes", left.div_ceil(60)),
        left if left < 2 * DAY_S => format!("expires in {} hours", left.div_ceil(3_600)),
        left => format!("expires in {} days", left.div_ceil(DAY_S)),
    })
}

const DAY_S: u64 = 86_400;

fn token_json(token: &Token) -> serde_json::Value {
    let (role, app) = role_and_app(&token.principal);
    serde_json::json!({
        "id": token.id, "role": role, "app": app, "made_s": token.made_s, "expires_s": token.expires_s,
        "expired": token.has_expired(now_s()),
    })
}
