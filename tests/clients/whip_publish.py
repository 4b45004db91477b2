"""Publishes a moving picture and a tone by WHIP with aiortc until it is killed. Usage: whip_publish.py URL

H.264 comes first in the offer, as aiortc would otherwise prefer VP8.
"""

import asyncio
import fractions
import math
import sys
import time
import urllib.request

import av
from aiortc import MediaStreamTrack, RTCPeerConnection, RTCRtpSender, RTCSessionDescription
from aiortc.mediastreams import AudioStreamTrack

WIDTH, HEIGHT, RATE = 640, 360, 30


class Picture(MediaStreamTrack):
    kind = "video"

    def __init__(self):
        super().__init__()
        self.begun = None
        self.count = 0

    async def recv(self):
        if self.begun is None:
            self.begun = time.monotonic()
        await asyncio.sleep(max(0, self.begun + self.count / RATE - time.monotonic()))
        frame = av.VideoFrame(WIDTH, HEIGHT, "yuv420p")
        for plane, value in zip(frame.planes, (60, 110, 150)):
            plane.update(bytes([value]) * plane.buffer_size)
        # A bright bar that runs across the picture.
        luma = frame.planes[0]
        row = bytearray([60]) * luma.line_size
        at = self.count * 4 % (WIDTH - 40)
        row[at : at + 40] = bytes([220]) * 40
        luma.update(bytes(row) * (luma.buffer_size // luma.line_size))
        frame.pts = self.count * 90000 // RATE
        frame.time_base = fractions.Fraction(1, 90000)
        self.count += 1
        return frame


class Tone(AudioStreamTrack):
    async def recv(self):
        frame = await super().recv()
        rate, first = frame.sample_rate, frame.pts
        samples = (int(3000 * math.sin(2 * math.pi * 440 * (first + i) / rate)) for i in range(frame.samples))
        frame.planes[0].update(b"".join(s.to_bytes(2, "little", signed=True) for s in samples))
        return frame


def post(url, offer):
    request = urllib.request.Request(url, offer.encode(), {"Content-Type": "application/sdp"}, method="POST")
    with urllib.request.urlopen(request, timeout=10) as response:
        assert response.status == 201, response.status
        assert response.headers["Location"], "no Location"
        return response.read().decode()


async def main(url):
    connection = RTCPeerConnection()
    failed = asyncio.Event()

    @connection.on("connectionstatechange")
    def changed():
        print(connection.connectionState, file=sys.stderr, flush=True)
        if connection.connectionState in ("failed", "closed"):
            failed.set()

    video = connection.addTransceiver(Picture(), direction="sendonly")
    connection.addTransceiver(Tone(), direction="sendonly")
    codecs = RTCRtpSender.getCapabilities("video").codecs
    video.setCodecPreferences([c for c in codecs if c.mimeType in ("video/H264", "video/rtx")])
    await connection.setLocalDescription(await connection.createOffer())
    answer = await asyncio.to_thread(post, url, connection.localDescription.sdp)
    await connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))
    await failed.wait()
    sys.exit("the connection is lost")


asyncio.run(main(sys.argv[1]))
