//! From the words about a backend or a prompt to what they describe. Every mistake in them is found here, before any work.

use std::fs;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};
use sheaf_client::{Prompt, PromptSpec, PromptTask};
use sheaf_worker::{Api, ApiKey, Backend, BackendUrl, HASH_EMBED_MODEL, Work};

use crate::args::{BackendArgs, PromptArgs};

/// What stands for [`Work::HashEmbed`] in the place of a URL.
const HASH_EMBED: &str = "builtin:hash-embed";

/// The variable that holds a key where no file does.
const KEY_VARIABLE: &str = "OPENAI_API_KEY";

/// What is called, where something is.
pub(crate) fn work_of(args: &BackendArgs) -> Result<Option<Work>> {
    let (url, is_api) = match (&args.http, &args.backend) {
        (Some(url), _) => (url, false),
        (None, Some(url)) => (url, true),
        (None, None) => {
            if args.backend_ca.is_some() {
                bail!("--backend-ca says whom to trust behind --http or --backend, and neither is given");
            }
            return Ok(None);
        }
    };
    if is_api && url == HASH_EMBED {
        return Ok(Some(Work::HashEmbed));
    }
    let url = BackendUrl::parse(url)?;
    let api = if is_api { Api::OpenAi { model: args.model.clone(), key: key(args, &url)? } } else { Api::Plain };
    let work = Work::Web(Backend { ca: args.backend_ca.clone(), api, ..Backend::new(url) });
    work.check()?;
    Ok(Some(work))
}

fn key(args: &BackendArgs, url: &BackendUrl) -> Result<Option<ApiKey>> {
    if let Some(file) = &args.api_key_file {
        let text =
            fs::read_to_string(file).with_context(|| format!("cannot read the API key in {}", file.display()))?;
        return Ok(Some(ApiKey::parse(&text).with_context(|| format!("in {}", file.display()))?));
    }
    let Some(text) = std::env::var_os(KEY_VARIABLE).filter(|text| !text.is_empty()) else { return Ok(None) };
    if !url.is_private() {
        eprintln!(
            "sheaf: {} is called without the key in {KEY_VARIABLE}, which others could read on the way: use https, or say \
             --api-key-file FILE",
            url.shown()
        );
        return Ok(None);
    }
    Ok(Some(ApiKey::parse(&text.to_string_lossy()).with_context(|| format!("in {KEY_VARIABLE}"))?))
}

/// The service that a backend offers unless it is named: its model, or the last part of its URL.
pub(crate) fn service_of(args: &BackendArgs) -> Result<Option<String>> {
    if let Some(url) = &args.http {
        return Ok(Some(BackendUrl::parse(url)?.base_name()));
    }
    match (&args.model, &args.backend) {
        (Some(model), _) => Ok(Some(model.clone())),
        (None, Some(url)) if url == HASH_EMBED => Ok(Some(HASH_EMBED_MODEL.to_owned())),
        (None, Some(_)) => {
            bail!("say which model the backend has, or which service it is: --model NAME or --service NAME")
        }
        (None, None) => Ok(None),
    }
}

/// What is asked of each row, where something is.
pub(crate) fn prompt_of(args: &PromptArgs, backend: &BackendArgs) -> Result<Option<Prompt>> {
    let task = match (&args.prompt, &args.embed) {
        (Some(prompt), _) => PromptTask::Chat { prompt: prompt.clone(), system: args.system.clone() },
        (None, Some(text)) => PromptTask::Embed { text: text.clone() },
        (None, None) if args.params.is_empty() => return Ok(None),
        (None, None) => bail!("--param adds to the requests that --prompt or --embed makes, and neither is given"),
    };
    let is_hash = backend.backend.as_deref() == Some(HASH_EMBED);
    let model = match (&backend.model, is_hash) {
        (Some(model), _) => model.clone(),
        (None, true) => HASH_EMBED_MODEL.to_owned(),
        (None, false) => bail!("say which model is asked: --model NAME"),
    };
    Ok(Some(Prompt::new(PromptSpec { task, model, params: params(args)? })?))
}

fn params(args: &PromptArgs) -> Result<Map<String, Value>> {
    let mut params = Map::new();
    if let Some(tokens) = args.max_tokens {
        params.insert("max_tokens".to_owned(), tokens.into());
    }
    if let Some(temperature) = args.temperature {
        if !(temperature.is_finite() && temperature >= 0.0) {
            bail!("--temperature is a number from 0, as in 0.2");
        }
        params.insert("temperature".to_owned(), temperature.into());
    }
    if let Some(file) = &args.schema {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read the schema in {}", file.display()))?;
        let schema: Value = serde_json::from_str(&text).with_context(|| format!("{} is no JSON", file.display()))?;
        if let Err(why) = sheaf_worker::check_schema(&schema) {
            bail!("{} cannot be used: {why}", file.display());
        }
        let format = json!({ "type": "json_schema", "json_schema": { "name": "answer", "schema": schema } });
        params.insert("response_format".to_owned(), format);
    }
    for param in &args.params {
        let Some((name, value)) = param.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            bail!("--param {param} has no name and value: write it as in top_p=0.9");
        };
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
        if params.insert(name.to_owned(), value).is_some() {
            bail!("{name} is given twice, by --param and by itself");
        }
    }
    Ok(params)
}
