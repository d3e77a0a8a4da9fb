//! `sheaf token`: works on the data directory, whether a router runs there or not.

use std::time::SystemTime;

use anyhow::{Result, bail};
use sheaf_roles::port::Principal;
use sheaf_server::tokens::{APP_BYTES_MAX, Token, create_token, is_app, revoke_token, role_and_app, tokens};

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
    let (token, secret) = create_token(&args.dir.data, principal)?;
    if json {
        let mut shown = token_json(&token);
        shown["token"] = secret.reveal().into();
        out::line(shown)?;
    } else {
        eprintln!("sheaf: token {} for {}; it is shown this once:", token.id, describe(&token));
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
            out::line(format_args!("{}  {}, {}", token.id, describe(token), age(token)))?;
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
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    match now.saturating_sub(token.made_s) / 86_400 {
        0 => "made today".to_owned(),
        1 => "made a day ago".to_owned(),
        days => format!("made {days} days ago"),
    }
}

fn token_json(token: &Token) -> serde_json::Value {
    let (role, app) = role_and_app(&token.principal);
    serde_json::json!({ "id": token.id, "role": role, "app": app, "made_s": token.made_s })
}
