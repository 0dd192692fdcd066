//! Answers of a Prometheus to an instant query.

use serde::Deserialize;

/// An answer's fields that count; a failure has `error` in place of `data`.
#[derive(Deserialize)]
struct Answer {
    status: String,
    #[serde(default)]
    error: String,
    data: Option<Data>,
}

#[derive(Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
enum Data {
    Scalar(Sample),
    Vector(Vec<Series>),
    Matrix(serde::de::IgnoredAny),
    String(serde::de::IgnoredAny),
}

/// Moment and value; the value is a text because JSON has no infinity.
#[derive(Deserialize)]
struct Sample(#[allow(dead_code, reason = "the moment comes first")] f64, String);

/// One series' last sample; a native histogram has none.
#[derive(Deserialize)]
struct Series {
    value: Option<Sample>,
}

impl Sample {
    fn number(&self) -> Result<f64, String> {
        self.1.parse().map_err(|_| format!("its sample {:?} is no number", self.1))
    }
}

/// Reads the samples of an answer to `GET /api/v1/query`, whatever its HTTP status is: one for each
/// series of a vector, or the one of a scalar.
///
/// # Errors
/// Fails if the Prometheus refuses the query, or the answer has no plain numbers; the text says so
/// for people.
pub fn prometheus_samples(body: &[u8]) -> Result<Vec<f64>, String> {
    let answer: Answer = serde_json::from_slice(body)
        .map_err(|error| format!("it does not answer as a Prometheus does ({error})"))?;
    if answer.status != "success" {
        return Err(format!("it refuses the query: {}", answer.error));
    }
    match answer.data {
        Some(Data::Scalar(sample)) => Ok(vec![sample.number()?]),
        Some(Data::Vector(all)) => {
            let sample = |it: &Series| {
                let none = || "it gives histograms, which are no numbers".to_owned();
                it.value.as_ref().ok_or_else(none)?.number()
            };
            all.iter().map(sample).collect()
        }
        Some(Data::Matrix(_)) => Err("it gives ranges: ask for one value, not for [5m]".to_owned()),
        Some(Data::String(_)) => Err("it gives a text, which is no number".to_owned()),
        None => Err("its answer has no data".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_those_of_a_vector_or_a_scalar() {
        let read = |data: &str| {
            let text = format!(r#"{{"status":"success","data":{data},"warnings":["x"]}}"#);
            prometheus_samples(text.as_bytes())
        };
        let vector =
            |result: &str| read(&format!(r#"{{"resultType":"vector","result":{result}}}"#));
        assert_eq!(vector("[]"), Ok(vec![]));
        assert_eq!(
            vector(
                r#"[{"metric":{"a":"b"},"value":[1435781451.781,"0.5"]},{"metric":{},"value":[1,"+Inf"]}]"#
            ),
            Ok(vec![0.5, f64::INFINITY])
        );
        assert_eq!(vector(r#"[{"metric":{},"value":[1,"-1.5e-05"]}]"#), Ok(vec![-1.5e-5]));
        assert!(vector(r#"[{"metric":{},"value":[1,"NaN"]}]"#).unwrap()[0].is_nan());
        assert_eq!(read(r#"{"resultType":"scalar","result":[1,"3"]}"#), Ok(vec![3.0]));
        for (wrong, why) in [
            (vector(r#"[{"metric":{},"histogram":[1,{}]}]"#), "histograms"),
            (vector(r#"[{"metric":{},"value":[1,"x"]}]"#), "no number"),
            (vector(r#"[{"metric":{},"value":[1,2]}]"#), "does not answer"),
            (read(r#"{"resultType":"matrix","result":[]}"#), "ranges"),
            (read(r#"{"resultType":"string","result":[1,"a"]}"#), "a text"),
            (read("null"), "no data"),
        ] {
            assert!(wrong.clone().unwrap_err().contains(why), "{wrong:?}");
        }
    }

    #[test]
    fn a_refusal_is_told_and_other_answers_are_none() {
        let refused = br#"{"status":"error","errorType":"bad_data","error":"parse error"}"#;
        assert_eq!(
            prometheus_samples(refused),
            Err("it refuses the query: parse error".to_owned())
        );
        for wrong in [&b""[..], b"<html>", b"[]", b"{}", b"\xff"] {
            assert!(prometheus_samples(wrong).is_err());
        }
    }
}
