//! Makes elements of plans. A name or value that an element does not have is an error here, never an abort.

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;

use super::{ElementPlan, Memory, Property, RateUnit, RungPlan, RungRequest, SoftwareEncoder, Value};

#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    #[error("GStreamer has no element {0}; `fishladder doctor` tells which package to install")]
    Element(String),
    #[error("no AAC encoder: neither avenc_aac nor voaacenc is installed")]
    AudioEncoder,
    #[error("{element} does not take {property}={value:?}")]
    Property { element: String, property: &'static str, value: Value },
    #[error(transparent)]
    Refused(#[from] super::Refused),
    #[error("GStreamer {0}.{1} is older than any that the back ends know")]
    Version(u32, u32),
}

/// The software encoders that this host has, the best one of each codec.
pub(crate) fn software_encoders() -> Vec<SoftwareEncoder> {
    let mut found: Vec<SoftwareEncoder> = Vec::new();
    for encoder in SoftwareEncoder::ALL.into_iter().filter(|e| is_usable(*e)) {
        if found.iter().all(|known| known.codec() != encoder.codec()) {
            found.push(encoder);
        }
    }
    found
}

/// Whether the element is there, in a plug-in of a release that is good enough: plug-ins may be newer or older than GStreamer.
pub(crate) fn is_usable(encoder: SoftwareEncoder) -> bool {
    gst::ElementFactory::find(encoder.factory())
        .and_then(|factory| factory.plugin())
        .is_some_and(|plugin| release(&plugin.version()) >= Some(encoder.usable_from()))
}

/// `1.24.5`, `1.24.5.1`.
fn release(version: &str) -> Option<(u32, u32, u32)> {
    let mut numbers = version.split('.').map_while(|n| n.parse().ok());
    Some((numbers.next()?, numbers.next()?, numbers.next()?))
}

pub(crate) fn make(name: &str) -> Result<gst::Element, BackendError> {
    gst::ElementFactory::make(name).build().map_err(|_| BackendError::Element(name.to_owned()))
}

pub(crate) fn has(name: &str) -> bool {
    gst::ElementFactory::find(name).is_some()
}

pub(crate) fn element(plan: &ElementPlan) -> Result<gst::Element, BackendError> {
    let element = make(&plan.factory)?;
    for property in &plan.properties {
        set(&element, property)?;
    }
    Ok(element)
}

/// Sets an encoder's bit rate while it runs.
pub(crate) fn set_bitrate(encoder: &gst::Element, unit: RateUnit, bits: u32) {
    let property = Property { name: "bitrate", value: Value::Uint(unit.value(bits)), conditional: false };
    if let Err(e) = set(encoder, &property) {
        tracing::warn!(error = %e, "the bit rate stays what it was");
    }
}

/// What the encoder of a rung is fed, without the colorimetry.
pub(crate) fn scaled_caps(plan: &RungPlan, rung: &RungRequest, memory: Memory) -> gst::Caps {
    let side = |v: u32| i32::try_from(v).unwrap_or(i32::MAX);
    let mut caps = gst::Caps::builder("video/x-raw")
        .field("format", plan.format)
        .field("width", side(rung.width))
        .field("height", side(rung.height))
        .field("pixel-aspect-ratio", gst::Fraction::new(1, 1));
    if plan.progressive {
        caps = caps.field("interlace-mode", "progressive");
    }
    match memory.feature() {
        Some(feature) => caps.features([feature]).build(),
        None => caps.build(),
    }
}

/// Raw pictures of any format and size in a device's memory.
pub(crate) fn memory_caps(memory: Memory) -> Option<gst::Caps> {
    Some(gst::Caps::builder("video/x-raw").features([memory.feature()?]).build())
}

fn set(element: &gst::Element, property: &Property) -> Result<(), BackendError> {
    let wrong = || BackendError::Property {
        element: element.factory().map_or_else(|| element.name().to_string(), |f| f.name().to_string()),
        property: property.name,
        value: property.value.clone(),
    };
    let Some(spec) = element.find_property(property.name) else {
        return if property.conditional { Ok(()) } else { Err(wrong()) };
    };
    let value = to_glib(&property.value, &spec).ok_or_else(wrong)?;
    if !spec.flags().contains(glib::ParamFlags::WRITABLE) {
        return Err(wrong());
    }
    element.set_property_from_value(property.name, &value);
    Ok(())
}

/// The value in the property's own type; None where type, range or word do not fit.
fn to_glib(value: &Value, spec: &glib::ParamSpec) -> Option<glib::Value> {
    match value {
        Value::Bool(v) => spec.downcast_ref::<glib::ParamSpecBoolean>().map(|_| v.to_value()),
        Value::Int(v) => {
            let spec = spec.downcast_ref::<glib::ParamSpecInt>()?;
            (spec.minimum()..=spec.maximum()).contains(v).then(|| v.to_value())
        }
        Value::Uint(v) => {
            let spec = spec.downcast_ref::<glib::ParamSpecUInt>()?;
            (spec.minimum()..=spec.maximum()).contains(v).then(|| v.to_value())
        }
        Value::Word(nick) => {
            if let Some(class) = glib::EnumClass::with_type(spec.value_type()) {
                class.to_value_by_nick(nick)
            } else {
                glib::FlagsClass::with_type(spec.value_type())?.to_value_by_nick(nick)
            }
        }
        Value::Text(v) => spec.downcast_ref::<glib::ParamSpecString>().map(|_| v.as_ref().to_value()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn queue(property: Property) -> Result<gst::Element, BackendError> {
        gst::init().unwrap();
        element(&ElementPlan { factory: "queue".into(), properties: vec![property] })
    }

    fn property(name: &'static str, value: Value) -> Property {
        Property { name, value, conditional: false }
    }

    #[test]
    fn names_types_ranges_and_words_that_do_not_fit_are_errors_and_not_aborts() {
        let good = queue(property("leaky", Value::Word("downstream"))).unwrap();
        assert_eq!(good.property_value("leaky").serialize().unwrap(), "downstream");
        for wrong in [
            property("no-such", Value::Bool(true)),
            property("silent", Value::Uint(1)),
            property("leaky", Value::Word("sideways")),
            // Read-only.
            property("current-level-buffers", Value::Uint(1)),
        ] {
            assert!(matches!(queue(wrong.clone()), Err(BackendError::Property { .. })), "{wrong:?}");
        }
        assert!(queue(Property { conditional: true, ..property("no-such", Value::Bool(true)) }).is_ok());
        let negative = Property { conditional: false, ..property("max-size-buffers", Value::Int(-1)) };
        assert!(queue(negative).is_err());
    }

    #[test]
    fn releases_are_compared_by_number() {
        assert!(release("1.24.13") > Some(SoftwareEncoder::Aom.usable_from()));
        assert_eq!(release("1.24.5.1"), Some(SoftwareEncoder::Aom.usable_from()));
        assert!(release("1.22.0") < Some(SoftwareEncoder::Aom.usable_from()));
        assert_eq!(release("snapshot"), None);
    }

    #[test]
    fn caps_name_the_memory() {
        gst::init().unwrap();
        assert_eq!(memory_caps(Memory::Cuda).unwrap().to_string(), "video/x-raw(memory:CUDAMemory)");
        assert!(memory_caps(Memory::System).is_none());
    }
}
