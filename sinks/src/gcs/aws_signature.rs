//! AWS's Signature Version 4, as far as a request without a body needs it.
//!
//! Source: "Create a signed AWS API request" in the documentation of AWS IAM, and AWS's test suite.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Url;
use sha2::{Digest, Sha256};

/// Characters that AWS leaves as they are.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// What is signed with.
pub(super) struct Key<'a> {
    pub(super) id: &'a str,
    pub(super) secret: &'a str,
    pub(super) region: &'a str,
    pub(super) service: &'a str,
    /// `20150830T123600Z`; also the header `x-amz-date`.
    pub(super) time: &'a str,
}

/// The header `Authorization` of a request without a body to the root path, where all of `headers` are signed:
/// names in lower case and in order, `host` among them.
pub(super) fn authorization(key: &Key<'_>, method: &str, url: &Url, headers: &[(&str, &str)]) -> String {
    let encode = |text: &str| utf8_percent_encode(text, UNRESERVED).to_string();
    let mut query: Vec<_> = url.query_pairs().map(|(k, v)| (encode(&k), encode(&v))).collect();
    query.sort();
    let query: Vec<_> = query.into_iter().map(|(k, v)| format!("{k}={v}")).collect();
    let lines: String = headers.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
    let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
    let request =
        format!("{method}\n/\n{}\n{lines}\n{names}\n{}", query.join("&"), hex(&Sha256::digest(b"")));

    let date = key.time.split('T').next().unwrap_or_default();
    let scope = format!("{date}/{}/{}/aws4_request", key.region, key.service);
    let text = format!("AWS4-HMAC-SHA256\n{}\n{scope}\n{}", key.time, hex(&Sha256::digest(request)));
    let first = format!("AWS4{}", key.secret).into_bytes();
    let signing = [date, key.region, key.service, "aws4_request"]
        .iter()
        .fold(first, |signing, step| hmac(&signing, step.as_bytes()).to_vec());
    let signature = hex(&hmac(&signing, text.as_bytes()));
    format!("AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={signature}", key.id)
}

/// RFC 2104 with SHA-256.
fn hmac(key: &[u8], text: &[u8]) -> [u8; 32] {
    let mut block = [0; 64];
    if key.len() > block.len() {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let inner = Sha256::new().chain_update(block.map(|b| b ^ 0x36)).chain_update(text).finalize();
    Sha256::new().chain_update(block.map(|b| b ^ 0x5c)).chain_update(inner).finalize().into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hmac_is_that_of_rfc_4231() {
        let cases: [(&[u8], &[u8], &str); 5] = [
            (&[0x0b; 20], b"Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
            (
                b"Jefe",
                b"what do ya want for nothing?",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (&[0xaa; 20], &[0xdd; 50], "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"),
            (
                &[0xaa; 131],
                b"Test Using Larger Than Block-Size Key - Hash Key First",
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            ),
            (
                &[0xaa; 131],
                b"This is a test using a larger than block-size key and a larger than block-size data. The key \
                  needs to be hashed before being used by the HMAC algorithm.",
                "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
            ),
        ];
        for (key, text, expected) in cases {
            assert_eq!(hex(&hmac(key, text)), expected);
        }
    }

    /// `post-vanilla`, `post-vanilla-query`, `get-vanilla`, `get-vanilla-query-order-key-case` and
    /// `get-vanilla-query-unreserved` of AWS's test suite.
    #[test]
    fn signatures_are_those_of_awss_test_suite() {
        let unreserved = "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        let cases = [
            ("POST", String::new(), "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
            (
                "POST",
                "?Param1=value1".into(),
                "28038455d6de14eafc1f9222cf5aa6f1a96197d7deb8263271d420d138af7f11",
            ),
            ("GET", String::new(), "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
            (
                "GET",
                "?Param2=value2&Param1=value1".into(),
                "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
            ),
            (
                "GET",
                format!("?{unreserved}={unreserved}"),
                "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197",
            ),
        ];
        let key = Key {
            id: "AKIDEXAMPLE",
            secret: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
            region: "us-east-1",
            service: "service",
            time: "20150830T123600Z",
        };
        let headers = [("host", "example.amazonaws.com"), ("x-amz-date", key.time)];
        for (method, query, signature) in cases {
            let url = Url::parse(&format!("https://example.amazonaws.com/{query}")).unwrap();
            assert_eq!(
                authorization(&key, method, &url, &headers),
                format!(
                    "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
                     SignedHeaders=host;x-amz-date, Signature={signature}"
                ),
                "{method} {query}"
            );
        }
    }
}
