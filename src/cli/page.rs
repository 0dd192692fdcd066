//! The status of a node as a page for a browser: no scripts, nothing from elsewhere.

use std::fmt::Write as _;

use serde_json::Value;

/// Content security policy of the page: it may use its own style, and nothing else.
pub const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; \
                          form-action 'none'; frame-ancestors 'none'";

/// Largest number of neighbors and links that are listed; the rest are counted.
const LISTED_MAX: usize = 100;

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1d2430;--soft:#667085;--line:#d9dee7;--paper:#f7f8fa;\
--card:#fff;--good:#177245;--bad:#b42318}\
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ef;--soft:#98a2b3;--line:#2f3747;\
--paper:#12161d;--card:#1a2029;--good:#4cc38a;--bad:#ff7a6e}}\
body{margin:0 auto;padding:2rem 1rem;max-width:60rem;background:var(--paper);color:var(--ink);\
font:15px/1.5 system-ui,sans-serif}\
h1{font-size:1.4rem;margin:0}h2{font-size:1rem;margin:2rem 0 .5rem}\
header p{margin:.25rem 0;color:var(--soft)}\
.badge{font-size:.85rem;padding:.1rem .6rem;border-radius:1rem;border:1px solid;\
vertical-align:.2em}.good{color:var(--good)}.bad{color:var(--bad)}\
table{width:100%;border-collapse:collapse;background:var(--card);border:1px solid var(--line)}\
th,td{padding:.35rem .75rem;border-top:1px solid var(--line);text-align:left;\
vertical-align:top;overflow-wrap:anywhere}\
th{font-weight:500;color:var(--soft);width:40%}td{font-variant-numeric:tabular-nums}\
nav a{margin-right:1rem;color:inherit}";

/// Escapes a text for HTML, in an element or in quotes.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            _ => out.push(c),
        }
    }
    out
}

/// Names and values, side by side.
type Rows = Vec<(String, String)>;

/// The page of a node with this status.
pub fn html(status: &Value, trouble: Option<&str>) -> String {
    let text = |name: &str| escape(&shown(name, &status[name]));
    let (role, endpoint) = (text("role"), text("endpoint"));
    let (class, verdict) = trouble.map_or(("good", "healthy".to_owned()), |it| ("bad", escape(it)));
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <title>{role} {endpoint}</title><style>{STYLE}</style></head><body>\
         <header><h1>{role} {endpoint} <span class=\"badge {class}\">{verdict}</span></h1>\
         <p>Folkmoot {}, up for {}</p></header>\
         <nav><a href=\"/status\">status</a><a href=\"/metrics\">metrics</a>\
         <a href=\"/healthz\">health</a></nav>",
        text("version"),
        text("uptime_ms"),
    );
    const HEAD: [&str; 5] = ["role", "endpoint", "version", "uptime_ms", "topology"];
    let mut plain = Vec::new();
    let mut tables: Vec<(String, usize, Rows)> = Vec::new();
    // Each service of the network layer has a table of its own.
    let services = status["network"].as_object().into_iter().flatten();
    for (name, value) in status.as_object().into_iter().flatten().chain(services) {
        match value {
            _ if name == "network" => {}
            _ if HEAD.contains(&name.as_str()) => {}
            Value::Object(fields) if !fields.is_empty() => {
                let rows = fields.iter().map(|(key, value)| (key.clone(), shown(name, value)));
                tables.push((name.clone(), fields.len(), rows.take(LISTED_MAX).collect()));
            }
            Value::Array(items) if items.iter().any(Value::is_object) => {
                let of = |item: &Value, field| shown(name, &item[field]);
                let rows = items.iter().map(|it| (of(it, "endpoint"), of(it, "standing")));
                tables.push((name.clone(), items.len(), rows.take(LISTED_MAX).collect()));
            }
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_)
            | Value::Object(_) => plain.push((name.clone(), shown(name, value))),
        }
    }
    write_table(&mut out, "state", plain.len(), &plain);
    for (name, count, rows) in tables {
        write_table(&mut out, &name, count, &rows);
    }
    out.push_str("</body></html>\n");
    out
}

fn write_table(out: &mut String, name: &str, count: usize, rows: &[(String, String)]) {
    let label = |name: &str| escape(&name.trim_end_matches("_ms").replace('_', " "));
    let _ = write!(out, "<h2>{}</h2><table>", label(name));
    for (key, value) in rows {
        let _ = write!(out, "<tr><th>{}</th><td>{}</td></tr>", label(key), escape(value));
    }
    if count > rows.len() {
        let _ = write!(out, "<tr><th>and {} more</th><td></td></tr>", count - rows.len());
    }
    out.push_str("</table>");
}

/// A value in words.
fn shown(name: &str, value: &Value) -> String {
    match (name, value) {
        (_, Value::Null) => "–".to_owned(),
        (_, Value::Bool(is_so)) => if *is_so { "yes" } else { "no" }.to_owned(),
        (_, Value::String(text)) => text.clone(),
        ("member_since", Value::Number(at)) => {
            crate::model::WallTime(at.as_u64().unwrap_or(0)).to_string()
        }
        ("uptime_ms", Value::Number(ms)) => {
            let secs = ms.as_u64().unwrap_or(0) / 1_000;
            super::span::Span(std::time::Duration::from_secs(secs)).to_string()
        }
        ("neighbors", Value::Number(micros)) => format!("{micros} µs"),
        (_, Value::Number(number)) => number.to_string(),
        (_, Value::Array(items)) if items.is_empty() => "none".to_owned(),
        (_, Value::Array(items)) => {
            let some = items.iter().take(LISTED_MAX).map(|item| shown(name, item));
            some.collect::<Vec<_>>().join(", ")
        }
        (_, Value::Object(fields)) if fields.is_empty() => "none".to_owned(),
        (_, Value::Object(fields)) if fields.contains_key("buckets") => {
            let number = |field: &str| fields.get(field).and_then(Value::as_u64).unwrap_or(0);
            match number("count") {
                0 => "none".to_owned(),
                count => {
                    format!("{:.1} on average of {count}", number("sum") as f64 / count as f64)
                }
            }
        }
        (_, Value::Object(fields)) => {
            let each = fields.iter().map(|(key, value)| format!("{key}: {}", shown(key, value)));
            each.take(LISTED_MAX).collect::<Vec<_>>().join(", ")
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_of_others_becomes_markup() {
        let evil = "<script>alert('x')</script>\"&";
        let status = json!({
            "role": "peer", "endpoint": evil, "state": evil, "neighbors": { evil: 5 },
            "links": [{ "endpoint": evil, "standing": evil }], "list": [evil],
            "nested": { "x": { evil: [evil] } },
        });
        let page = html(&status, Some(evil));
        assert!(!page.contains("<script") && !page.contains("alert('"), "{page}");
        assert!(page.matches("&lt;script&gt;alert(&#39;x&#39;)").count() >= 9, "{page}");
        assert!(!page.contains("src=") && !page.contains("http"), "nothing from elsewhere");
    }

    #[test]
    fn a_long_list_is_cut_and_counted() {
        let neighbors: serde_json::Map<_, _> =
            (0..LISTED_MAX + 7).map(|it| (format!("n{it:04}"), json!(it))).collect();
        let page = html(&json!({ "role": "peer", "neighbors": neighbors }), None);
        assert!(page.contains("and 7 more") && page.contains("healthy"), "{page}");
        assert_eq!(page.matches("<th>n").count(), LISTED_MAX);
    }
}
