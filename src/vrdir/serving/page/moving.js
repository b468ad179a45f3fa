// Webcam and short clips: one frame after the other goes to the engine, and is drawn as it comes.

const LONGEST = 30; // seconds of a clip

/** The service's WebSocket: frames in, restored frames out. */
class ServiceFrames {
  static side = 640; // pixels: the longer side of the frames that are sent

  constructor(address) {
    this.socket = new WebSocket(address);
    this.socket.binaryType = "blob";
    this.refused = new Error("The service refused the video stream");
  }

  async open() {
    await new Promise((resolve, reject) => {
      this.socket.onopen = resolve;
      this.socket.onclose = () => reject(this.refused);
    });
    this.socket.onclose = () => this.reject?.(this.#ended());
    this.socket.onmessage = ({ data }) => {
      if (typeof data !== "string") {
        this.resolve({ picture: data, milliseconds: this.milliseconds });
        return;
      }
      const facts = JSON.parse(data);
      this.milliseconds = facts.milliseconds;
      if (facts.problem) this.reject(new Error(facts.problem.detail));
    };
  }

  async restore(canvas) {
    const blob = await new Promise((done) => { canvas.toBlob(done, "image/jpeg", 0.9); });
    const { picture, milliseconds } = await new Promise((resolve, reject) => {
      Object.assign(this, { resolve, reject });
      if (this.socket.readyState === WebSocket.OPEN) this.socket.send(blob);
      else reject(this.#ended());
    });
    return { picture: await createImageBitmap(picture), milliseconds };
  }

  close() {
    this.stopped = true;
    this.socket.close();
  }

  #ended() {
    return this.stopped ? new DOMException("stopped", "AbortError") : new Error("The service ended the video stream");
  }
}

/** Frames restored on this device, smaller ones: it is slower. */
class DeviceFrames {
  static side = 256;

  constructor(device, options) {
    Object.assign(this, { device, options });
  }

  async open() {
    await this.device.open();
  }

  async restore(canvas) {
    return this.device.frame(await createImageBitmap(canvas), this.options);
  }

  close() {}
}

export class Moving {
  constructor(parts) {
    Object.assign(this, parts);
    this.frames = null;
  }

  async webcam() {
    this.stop();
    try {
      this.video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 640 } } });
    } catch (error) {
      this.fail(new Error(error.name === "NotAllowedError"
        ? "The webcam was not allowed; allow it in the address bar, and try again"
        : `The webcam cannot be used: ${error.message}`));
      return;
    }
    await this.#run();
  }

  async play(file) {
    this.stop();
    this.video.srcObject = null;
    this.video.src = URL.createObjectURL(file);
    try {
      await new Promise((resolve, reject) => {
        this.video.onloadeddata = resolve;
        this.video.onerror = () => reject(new Error(`${file.name} is not a video that this browser plays; vrdir restore takes it`));
      });
    } catch (error) {
      this.fail(error);
      return;
    }
    if (this.video.duration > LONGEST) this.say(`Only the first ${LONGEST} seconds are restored here; vrdir restore takes whole videos.`);
    await this.#run();
  }

  stop() {
    this.frames?.close();
    this.frames = null;
    this.video.pause();
    this.video.srcObject?.getTracks().forEach((track) => track.stop());
    if (this.recorder?.state === "recording") this.recorder.stop();
  }

  /** The frame that the video shows, as a photo. */
  snap() {
    const canvas = this.#grab(this.video.videoWidth);
    return new Promise((resolve) => {
      canvas.toBlob((blob) => resolve(new File([blob], "webcam.png", { type: "image/png" })), "image/png");
    });
  }

  #grab(side) {
    const scale = Math.min(1, side / Math.max(this.video.videoWidth, this.video.videoHeight));
    const canvas = document.createElement("canvas");
    canvas.width = Math.round(this.video.videoWidth * scale);
    canvas.height = Math.round(this.video.videoHeight * scale);
    canvas.getContext("2d").drawImage(this.video, 0, 0, canvas.width, canvas.height);
    return canvas;
  }

  async #engine() {
    const device = this.device();
    if (device) return new DeviceFrames(device, this.options());
    const { strength, only, none, weights } = this.options();
    const query = new URLSearchParams({ strength: none ? "0" : strength, quality: "85" });
    only.forEach((name) => query.append("only", name));
    if (weights) query.set("weights", weights);
    const address = new URL(await this.service.withToken(`v1/stream?${query}`), document.baseURI);
    address.protocol = address.protocol.replace("http", "ws");
    return new ServiceFrames(address);
  }

  async #run() {
    this.section.hidden = false;
    this.reveal(this.section);
    this.link.hidden = true;
    try {
      const frames = await this.#engine();
      this.frames = frames;
      await frames.open();
      await this.video.play();
      this.#record();
      await this.#restoreFrames(frames);
      await new Promise((done) => { setTimeout(done, 500); }); // so that the last frame is recorded
    } catch (error) {
      if (error.name !== "AbortError") this.fail(error);
    }
    this.stop();
    this.say("The video has stopped.");
  }

  /** The next frame is taken when the last one is done: the delay stays that of one frame. */
  async #restoreFrames(frames) {
    const times = [];
    const over = () => this.video.ended || (!this.video.srcObject && this.video.currentTime > LONGEST);
    while (this.frames === frames && !over()) {
      const { picture, milliseconds } = await frames.restore(this.#grab(frames.constructor.side));
      if (this.canvas.width !== picture.width || this.canvas.height !== picture.height) {
        [this.canvas.width, this.canvas.height] = [picture.width, picture.height];
      }
      this.canvas.getContext("2d").drawImage(picture, 0, 0);
      picture.close();
      times.push(performance.now());
      if (times.length > 20) times.shift();
      const seconds = (times.at(-1) - times[0]) / 1000;
      const rate = seconds ? ((times.length - 1) / seconds).toFixed(1) : "-";
      this.rate.textContent = `${rate} frames a second, ${Math.round(milliseconds)} ms each`;
    }
  }

  #record() {
    if (typeof MediaRecorder === "undefined" || this.video.srcObject) return;
    const pieces = [];
    this.recorder = new MediaRecorder(this.canvas.captureStream());
    this.recorder.ondataavailable = (event) => pieces.push(event.data);
    this.recorder.onstop = () => {
      this.link.href = URL.createObjectURL(new Blob(pieces, { type: this.recorder.mimeType }));
      this.link.hidden = false;
    };
    this.recorder.start();
  }
}
