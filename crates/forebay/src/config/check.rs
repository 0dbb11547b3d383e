//! One value against what its key accepts. The results say what was found, for the sentence
//! "`key` is ...; allowed: ...".

use std::net::SocketAddr;
use std::path::Path;

use toml::de::DeValue;
use toml::{Spanned, Value};

use super::declare::Allowed;
use super::value::{Device, Rungs};

/// One path of a list.
const PATH: Allowed = Allowed::Path("");

/// Text of the user in a message: on one line and not longer than a line should be.
pub(super) fn shown(text: &str) -> String {
    const CHARS_MAX: usize = 60;
    let mut short = String::new();
    for (nth, character) in text.chars().enumerate() {
        if nth == CHARS_MAX {
            short.push('…');
            break;
        }
        if character.is_control() {
            short.extend(character.escape_default());
        } else {
            short.push(character);
        }
    }
    short
}

pub(super) fn with_article(type_name: &str) -> String {
    match type_name {
        "integer" | "array" => format!("an {type_name}"),
        _ => format!("a {type_name}"),
    }
}

/// A parsed value without its places, or what it is if no key takes the like.
pub(super) fn plain(value: &Spanned<DeValue<'_>>) -> Result<Value, String> {
    Ok(match value.get_ref() {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(digits) => Value::Integer(
            i64::from_str_radix(digits.as_str(), digits.radix())
                .map_err(|_| shown(&digits.to_string()))?,
        ),
        DeValue::Float(digits) => {
            Value::Float(digits.as_str().parse().map_err(|_| shown(digits.as_str()))?)
        }
        DeValue::Boolean(on) => Value::Boolean(*on),
        DeValue::Array(items) => Value::Array(items.iter().map(plain).collect::<Result<_, _>>()?),
        other @ (DeValue::Datetime(_) | DeValue::Table(_)) => {
            return Err(with_article(other.type_str()));
        }
    })
}

/// The value that an environment variable gives to a key.
pub(super) fn from_variable(allowed: Allowed, text: &str) -> Result<Value, String> {
    match allowed {
        Allowed::Choice(_)
        | Allowed::Path(_)
        | Allowed::PathOr(..)
        | Allowed::Name(_)
        | Allowed::Address(_)
        | Allowed::Url(_)
        | Allowed::Rungs => Ok(Value::String(text.to_owned())),
        // As in PATH; empty parts name nothing.
        Allowed::PathList(_) => {
            let parts = text.split(':').filter(|part| !part.is_empty());
            Ok(Value::Array(parts.map(|part| Value::String(part.to_owned())).collect()))
        }
        Allowed::NameList(_) | Allowed::HashList(_) => {
            let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
            Ok(Value::Array(parts.map(|part| Value::String(part.to_owned())).collect()))
        }
        Allowed::Integer(..) | Allowed::Number(..) | Allowed::Switch | Allowed::IntegerList(..) => {
            let unusable = || format!("\"{}\"", shown(text));
            let value = DeValue::parse(text.trim()).map_err(|_| unusable())?;
            plain(&value).map_err(|_| unusable())
        }
    }
}

/// The value with its relative paths joined to the folder from which they count.
pub(super) fn based(allowed: Allowed, value: Value, base: Option<&Path>) -> Result<Value, String> {
    let Some(base) = base else { return Ok(value) };
    match (allowed, value) {
        (Allowed::PathOr(word, _), Value::String(text)) if text == word => Ok(Value::String(text)),
        (Allowed::Path(_) | Allowed::PathOr(..), Value::String(text)) if !text.is_empty() => {
            match base.join(&text).into_os_string().into_string() {
                Ok(path) => Ok(Value::String(path)),
                Err(_) => Err(format!(
                    "\"{}\" in a folder whose name is not UTF-8 (write the whole path)",
                    shown(&text)
                )),
            }
        }
        (Allowed::PathList(_), Value::Array(items)) => {
            let items = items.into_iter().map(|item| based(PATH, item, Some(base)));
            Ok(Value::Array(items.collect::<Result<_, _>>()?))
        }
        (_, value) => Ok(value),
    }
}

/// Says what `value` is if the key does not take it.
pub(super) fn check(allowed: Allowed, value: &Value) -> Result<(), String> {
    let ok = match (allowed, value) {
        (Allowed::Integer(low, high), Value::Integer(number)) => (low..=high).contains(number),
        (Allowed::Number(low, high), Value::Float(number)) => (low..=high).contains(number),
        // A whole number beyond 2^53 is rounded here, far outside of every range.
        (Allowed::Number(low, high), Value::Integer(number)) => {
            (low..=high).contains(&(*number as f64))
        }
        (Allowed::Switch, Value::Boolean(_)) => true,
        (Allowed::Choice(words), Value::String(text)) => words.contains(&text.as_str()),
        (Allowed::Path(_) | Allowed::PathOr(..), Value::String(text)) if text.contains('\0') => {
            return Err("a path with a NUL character".to_owned());
        }
        (Allowed::Path(_) | Allowed::PathOr(..), Value::String(_)) => true,
        (Allowed::Name(_), Value::String(text)) => text.is_empty() || is_name(text),
        (Allowed::Address(_), Value::String(text)) => {
            text.is_empty() || text.parse::<SocketAddr>().is_ok()
        }
        (Allowed::Url(_), Value::String(text)) => text.is_empty() || is_url(text),
        (Allowed::NameList(count), Value::Array(items)) => {
            return check_texts(items, count, is_name);
        }
        (Allowed::HashList(count), Value::Array(items)) => {
            return check_texts(items, count, is_hash);
        }
        (Allowed::Rungs, Value::String(text)) => match text.parse()? {
            Rungs::Auto => true,
            Rungs::Listed(devices) => return check_devices(&devices),
        },
        (Allowed::Rungs, Value::Array(items)) => return check_devices(&devices(items)?),
        (Allowed::PathList(count), Value::Array(items)) => {
            if items.len() > count {
                return Err(format!("a list of {}", items.len()));
            }
            for item in items {
                // Here an empty path has no meaning.
                let empty = item.as_str().is_some_and(str::is_empty);
                let checked = if empty { Err("\"\"".into()) } else { check(PATH, item) };
                checked.map_err(|what| format!("a list with {what} in it"))?;
            }
            true
        }
        (Allowed::IntegerList(count, low, high), Value::Array(items)) => {
            if items.is_empty() || items.len() > count {
                return Err(format!("a list of {}", items.len()));
            }
            for item in items {
                check(Allowed::Integer(low, high), item)
                    .map_err(|what| format!("a list with {what} in it"))?;
            }
            true
        }
        (_, other @ (Value::Array(_) | Value::Table(_) | Value::Datetime(_))) => {
            return Err(with_article(other.type_str()));
        }
        (Allowed::Integer(..), Value::Float(_)) => false,
        (Allowed::Integer(..) | Allowed::Number(..), other) if other.type_str() != "integer" => {
            return Err(format!(
                "{} ({})",
                with_article(other.type_str()),
                shown(&other.to_string())
            ));
        }
        _ => false,
    };
    if ok { Ok(()) } else { Err(shown(&value.to_string())) }
}

/// Whether a text can name a user, a group, a host or a currency.
fn is_name(text: &str) -> bool {
    const BYTES_MAX: usize = 255;
    let ordinary = |c: char| !c.is_whitespace() && !c.is_control() && c != ',';
    (1..=BYTES_MAX).contains(&text.len()) && text.chars().all(ordinary)
}

/// Whether a text is an `http://` address of a host, with a port and a path if need be.
fn is_url(text: &str) -> bool {
    const BYTES_MAX: usize = 1_024;
    let Some(rest) = text.strip_prefix("http://").filter(|_| text.len() <= BYTES_MAX) else {
        return false;
    };
    let (authority, _) = rest.split_once('/').unwrap_or((rest, ""));
    let (host, port) = match authority.rsplit_once(':') {
        // A colon inside of brackets is one of an IPv6 address.
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let ordinary = |c: char| c.is_ascii_graphic() && !"\"<>\\^`{|}?#@".contains(c);
    !host.is_empty()
        && rest.chars().all(ordinary)
        && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

/// Whether a text is a SHA-256 sum.
fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn check_texts(items: &[Value], count_max: usize, is_good: fn(&str) -> bool) -> Result<(), String> {
    if items.len() > count_max {
        return Err(format!("a list of {}", items.len()));
    }
    match items.iter().find(|item| !item.as_str().is_some_and(is_good)) {
        // Not shown: what stands where the sum of a key belongs may be the key.
        Some(_) => Err("a list with something else in it".to_owned()),
        None => Ok(()),
    }
}

fn devices(items: &[Value]) -> Result<Vec<Device>, String> {
    items
        .iter()
        .map(|item| {
            let name = item.as_str().ok_or_else(|| format!("a list with {item} in it"))?;
            name.parse().map_err(|_| format!("a list with \"{}\" in it", shown(name)))
        })
        .collect()
}

fn check_devices(devices: &[Device]) -> Result<(), String> {
    if devices.is_empty() {
        return Err("an empty list".to_owned());
    }
    for (nth, device) in devices.iter().enumerate() {
        if devices.iter().take(nth).any(|earlier| earlier == device) {
            return Err(format!("a list with \"{device}\" twice"));
        }
    }
    Ok(())
}
