"""Plays HLS with GStreamer's hlsdemux2 for some seconds of media and prints what was decoded as JSON.

Usage: gst_player.py URL SECONDS. Any error or a stall (no picture for 5 s once playing) is a failure.
"""

import json
import sys
import time

import gi

gi.require_version("Gst", "1.0")
from gi.repository import Gst  # noqa: E402

url, seconds = sys.argv[1], float(sys.argv[2])
Gst.init(None)

# The newer demuxer must be the one that is chosen.
feature = Gst.Registry.get().find_feature("hlsdemux2", Gst.ElementFactory.__gtype__)
if feature is None:
    sys.exit("hlsdemux2 is missing (gstreamer1.0-plugins-good)")
feature.set_rank(Gst.Rank.PRIMARY + 100)

counts = {"pictures": 0, "sounds": 0}
spans = {"pictures": [None, None], "sounds": [None, None]}
last_picture = [None]
demuxers = set()


def count(pad, info, kind):
    buffer = info.get_buffer()
    counts[kind] += 1
    if kind == "pictures":
        last_picture[0] = time.monotonic()
    if buffer.pts != Gst.CLOCK_TIME_NONE:
        first, _ = spans[kind]
        spans[kind] = [buffer.pts if first is None else first, buffer.pts]
    return Gst.PadProbeReturn.OK


player = Gst.ElementFactory.make("playbin3")
player.set_property("uri", url)
for name, kind in (("video-sink", "pictures"), ("audio-sink", "sounds")):
    sink = Gst.ElementFactory.make("fakesink")
    sink.set_property("sync", True)
    sink.get_static_pad("sink").add_probe(Gst.PadProbeType.BUFFER, count, kind)
    player.set_property(name, sink)
player.connect("deep-element-added", lambda _, __, e: e.get_factory() and demuxers.add(e.get_factory().get_name()))

player.set_state(Gst.State.PLAYING)
bus = player.get_bus()
begun = time.monotonic()


def covered():
    first, last = spans["pictures"]
    return 0 if first is None else (last - first) / Gst.SECOND


failure = None
while covered() < seconds and failure is None:
    message = bus.timed_pop_filtered(100 * Gst.MSECOND, Gst.MessageType.ERROR | Gst.MessageType.EOS)
    now = time.monotonic()
    if message is not None and message.type == Gst.MessageType.ERROR:
        error, debug = message.parse_error()
        failure = f"{error.message}: {debug}"
    elif message is not None:
        failure = "the stream ended"
    elif last_picture[0] is not None and now - last_picture[0] > 5:
        failure = f"no picture for 5 s after {covered():.1f} s of media"
    elif now - begun > seconds + 45:
        failure = f"only {covered():.1f} s of media were played"
player.set_state(Gst.State.NULL)
if "hlsdemux2" not in demuxers:
    failure = failure or f"hlsdemux2 was not used, but {sorted(demuxers)}"
if failure:
    sys.exit(failure)
print(json.dumps({**counts, "seconds": covered()}))
