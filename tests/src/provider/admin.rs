//! `/mock/…`: the admin endpoint of the fake provider. The journal records only those of its requests that are refused.

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::server::{Body, Shared, json_response, whole};
use super::{journal_json, json, presets};

pub(super) fn answer(shared: &Shared, head: &Parts, body: &Bytes, client_port: u16) -> Response<Body> {
    match act(shared, &head.method, head.uri.path(), body) {
        Ok(reply) => json_response(StatusCode::OK, reply.to_string()),
        Err((status, message)) => {
            let seen = Value::String(String::from_utf8_lossy(body).into_owned());
            let ending = shared.journal.record(head, &seen, client_port);
            whole(ending, "refused", status, &json!({"error": message}))
        }
    }
}

fn act(shared: &Shared, method: &Method, path: &str, body: &Bytes) -> Result<Value, (StatusCode, String)> {
    let bad = |message: String| (StatusCode::BAD_REQUEST, message);
    let json = || -> Result<Value, (StatusCode, String)> {
        serde_json::from_slice(body).map_err(|error| bad(format!("invalid JSON: {error}")))
    };
    match (method.as_str(), path) {
        ("POST", "/mock/scripts") => {
            let scripts = json::scripts(&json()?).map_err(bad)?;
            let count = scripts.len();
            scripts.into_iter().for_each(|script| shared.plan.push(script));
            Ok(json!({"queued": count}))
        }
        ("PUT", "/mock/always") => {
            shared.plan.always(json::script(&json()?).map_err(bad)?);
            Ok(json!({"always": true}))
        }
        ("POST", "/mock/random") => {
            let (seed, mix) = json::random(&json()?).map_err(bad)?;
            shared.plan.random(seed, mix);
            Ok(json!({"seed": seed}))
        }
        ("DELETE", "/mock") => {
            shared.plan.clear();
            shared.journal.clear();
            Ok(json!({"reset": true}))
        }
        ("GET", "/mock/journal") => Ok(journal_json::journal(&shared.journal)),
        ("GET", "/mock/presets") => {
            Ok(presets::ALL.iter().map(|(name, about)| json!({"name": name, "about": about})).collect())
        }
        _ => {
            let known = "POST /mock/scripts, PUT /mock/always, POST /mock/random, DELETE /mock, GET /mock/journal, \
                GET /mock/presets";
            Err((StatusCode::NOT_FOUND, format!("unknown path; the paths are: {known}")))
        }
    }
}
