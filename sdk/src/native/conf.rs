use std::ffi::{CStr, CString};

use super::sys;
use crate::{Error, ErrorKind, Result};

/// An owned `rd_kafka_conf_t`, until a client takes it.
pub(super) struct OwnedConf(*mut sys::rd_kafka_conf_t);

impl OwnedConf {
    pub(super) fn as_ptr(&self) -> *mut sys::rd_kafka_conf_t {
        self.0
    }

    /// Gives the pointer away; librdkafka owns it from here on.
    pub(super) fn release(self) -> *mut sys::rd_kafka_conf_t {
        let pointer = self.0;
        std::mem::forget(self);
        pointer
    }
}

impl Drop for OwnedConf {
    fn drop(&mut self) {
        // SAFETY: we own the pointer; `release` forgets self.
        unsafe { sys::rd_kafka_conf_destroy(self.0) }
    }
}

/// Properties for a client, in the order in which they are set. A later value replaces an earlier one.
#[derive(Clone, Default)]
pub(crate) struct Conf {
    properties: Vec<(String, String)>,
}

impl Conf {
    pub(crate) fn set(&mut self, key: impl Into<String>, value: impl Into<String>) -> &mut Self {
        self.properties.push((key.into(), value.into()));
        self
    }

    pub(super) fn to_native(&self) -> Result<OwnedConf> {
        // SAFETY: no arguments; the result is owned by the guard.
        let conf = OwnedConf(unsafe { sys::rd_kafka_conf_new() });
        for (key, value) in &self.properties {
            let invalid =
                |detail: String| Error::new(ErrorKind::InvalidConfig, "configure the Kafka client", detail);
            let c_key =
                CString::new(key.as_str()).map_err(|_| invalid("a property name holds a NUL byte".into()))?;
            let c_value = CString::new(value.as_str())
                .map_err(|_| invalid(format!("the value of property {key} holds a NUL byte")))?;
            let mut text = [0 as std::ffi::c_char; 512];
            // SAFETY: all pointers are valid for the call, and the buffer's length is passed.
            let outcome = unsafe {
                sys::rd_kafka_conf_set(
                    conf.0,
                    c_key.as_ptr(),
                    c_value.as_ptr(),
                    text.as_mut_ptr(),
                    text.len(),
                )
            };
            match outcome {
                sys::rd_kafka_conf_res_t::RD_KAFKA_CONF_OK => {}
                sys::rd_kafka_conf_res_t::RD_KAFKA_CONF_UNKNOWN => {
                    return Err(invalid(format!("there is no property named {key}")));
                }
                sys::rd_kafka_conf_res_t::RD_KAFKA_CONF_INVALID => {
                    // librdkafka's text may repeat the value, which may be a secret.
                    // SAFETY: the buffer is NUL-terminated by librdkafka.
                    let text = unsafe { CStr::from_ptr(text.as_ptr()) }.to_string_lossy();
                    let detail = if crate::properties::is_secret(key) {
                        format!("property {key} has a value that is not allowed")
                    } else {
                        format!("property {key}: {text}")
                    };
                    return Err(invalid(detail));
                }
            }
        }
        Ok(conf)
    }

    /// Checks every property, and names each that is wrong.
    pub(crate) fn problems(&self) -> Vec<String> {
        let single = |(key, value): &(String, String)| {
            let mut one = Conf::default();
            one.set(key, value);
            one.to_native().err().map(|e| e.detail().to_owned())
        };
        self.properties.iter().filter_map(single).collect()
    }
}
