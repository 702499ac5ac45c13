//! AWS's part: what its roles are called here, and whether a signed request for the caller's identity, which
//! is AWS's subject token, was really signed (Signature Version 4).

use std::collections::BTreeMap;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::routes::pairs;

pub(super) const ROLE: &str = "gristmill-role";

/// The secret of an access key, also of one that a test made up.
pub(super) fn secret_of(access_key: &str) -> String {
    format!("secret-of-{access_key}")
}

#[derive(Deserialize)]
struct SignedRequest {
    url: String,
    method: String,
    headers: Vec<Header>,
    #[serde(default)]
    body: String,
}

#[derive(Deserialize)]
struct Header {
    key: String,
    value: String,
}

/// Characters that AWS leaves as they are in a query.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Checks a subject token; the error says what AWS or Google would not accept.
pub(super) fn verify(
    subject: &str,
    audience: &str,
    session_is_live: impl Fn(&str) -> bool,
) -> Result<(), String> {
    let decoded = pairs(subject).into_iter().map(|(key, _)| key).collect::<String>();
    let request: SignedRequest =
        serde_json::from_str(&decoded).map_err(|error| format!("subject token: {error}"))?;
    let headers: BTreeMap<String, &str> =
        request.headers.iter().map(|header| (header.key.to_lowercase(), header.value.trim())).collect();
    let header = |name: &str| headers.get(name).copied().ok_or_else(|| format!("no header {name}"));

    let (address, query) = request.url.split_once('?').unwrap_or((&request.url, ""));
    let address = address.strip_prefix("https://").ok_or("the URL is not https")?;
    let (host, path) =
        address.split_once('/').map_or((address, "/".to_owned()), |(h, p)| (h, format!("/{p}")));
    let mut query = pairs(query);
    query.sort();
    let asks = |key: &str, value: &str| query.iter().any(|(k, v)| (k.as_str(), v.as_str()) == (key, value));
    if !asks("Action", "GetCallerIdentity") || !asks("Version", "2011-06-15") || request.method != "POST" {
        return Err("the request is not one for the caller's identity".into());
    }
    if header("host")? != host {
        return Err("the header host is not the URL's".into());
    }
    if header("x-goog-cloud-target-resource")? != audience {
        return Err("x-goog-cloud-target-resource is not the audience".into());
    }

    let rest = header("authorization")?.strip_prefix("AWS4-HMAC-SHA256 ").ok_or("not AWS4-HMAC-SHA256")?;
    let parts: BTreeMap<&str, &str> =
        rest.split(',').filter_map(|part| part.trim().split_once('=')).collect();
    let part = |name: &str| parts.get(name).copied().ok_or_else(|| format!("no {name} in Authorization"));
    let scope: Vec<&str> = part("Credential")?.split('/').collect();
    let [key, date, region, "sts", "aws4_request"] = scope[..] else { return Err("a wrong scope".into()) };
    let time = header("x-amz-date")?;
    if !time.starts_with(date) || date.len() != 8 {
        return Err("the scope's date is not that of x-amz-date".into());
    }
    let signed: Vec<&str> = part("SignedHeaders")?.split(';').collect();
    for needed in ["host", "x-amz-date", "x-goog-cloud-target-resource"] {
        if !signed.contains(&needed) {
            return Err(format!("{needed} is not signed"));
        }
    }
    // Temporary keys come with a session token, and that has to be a live one.
    if key.starts_with("ASIA") && !session_is_live(header("x-amz-security-token")?) {
        return Err("the security token is unknown or expired".into());
    }

    let encode = |text: &str| utf8_percent_encode(text, UNRESERVED).to_string();
    let query =
        query.iter().map(|(k, v)| format!("{}={}", encode(k), encode(v))).collect::<Vec<_>>().join("&");
    let mut canonical = format!("{}\n{path}\n{query}\n", request.method);
    for name in &signed {
        canonical.push_str(&format!("{name}:{}\n", header(name)?));
    }
    canonical.push_str(&format!("\n{}\n{}", signed.join(";"), hex(&Sha256::digest(&request.body))));
    let scope = format!("{date}/{region}/sts/aws4_request");
    let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hex(&Sha256::digest(&canonical)));
    let mut signing = hmac(format!("AWS4{}", secret_of(key)).as_bytes(), date.as_bytes());
    for step in [region, "sts", "aws4_request"] {
        signing = hmac(&signing, step.as_bytes());
    }
    if hex(&hmac(&signing, text.as_bytes())) != part("Signature")? {
        return Err("the signature does not match".into());
    }
    Ok(())
}

/// RFC 2104 with SHA-256.
fn hmac(key: &[u8], text: &[u8]) -> Vec<u8> {
    let mut block = [0u8; 64];
    if key.len() > block.len() {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let pad = |with: u8| block.map(|byte| byte ^ with);
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(text).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hmac_is_that_of_rfc_4231() {
        assert_eq!(
            hex(&hmac(b"Jefe", b"what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert_eq!(
            hex(&hmac(&[0xaa; 131], b"Test Using Larger Than Block-Size Key - Hash Key First")),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
    }
}
