// Webcam and short clips: frames go to the service's WebSocket, restored ones are drawn as they come.

const SIDE = 640; // pixels: the longer side of the frames that are sent
const LONGEST = 30; // seconds of a clip

export class Moving {
  constructor(parts) {
    Object.assign(this, parts);
    this.socket = null;
    this.times = [];
  }

  async webcam() {
    try {
      const stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: SIDE } } });
      this.video.srcObject = stream;
      await this.#start();
    } catch (error) {
      this.fail(new Error(`The webcam cannot be used: ${error.message}`));
    }
  }

  async play(file) {
    this.video.srcObject = null;
    this.video.src = URL.createObjectURL(file);
    try {
      await new Promise((resolve, reject) => {
        this.video.onloadeddata = resolve;
        this.video.onerror = () => reject(new Error(`${file.name} is not a video that this browser plays`));
      });
      if (this.video.duration > LONGEST) {
        this.say(`Only the first ${LONGEST} seconds are restored here; vrdir restore takes whole videos.`);
      }
      await this.#start();
    } catch (error) {
      this.fail(error);
    }
  }

  stop() {
    this.socket?.close();
    this.socket = null;
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

  async #start() {
    this.section.hidden = false;
    this.link.hidden = true;
    if (this.keyed()) throw new Error("A browser cannot send an API key with a WebSocket; video needs a service without keys");
    const { strength, only, none, weights } = this.options();
    const query = new URLSearchParams({ strength: none ? "0" : strength, quality: "85" });
    only.forEach((name) => query.append("only", name));
    if (weights) query.set("weights", weights);
    const address = new URL(`v1/stream?${query}`, location.href);
    address.protocol = address.protocol.replace("http", "ws");
    this.socket?.close();
    const socket = new WebSocket(address);
    this.socket = socket;
    socket.binaryType = "blob";
    socket.onmessage = (event) => this.#received(event.data);
    socket.onerror = () => this.fail(new Error("The service refused the video stream"));
    await new Promise((resolve, reject) => { socket.onopen = resolve; socket.onclose = reject; }).catch(() => {
      throw new Error("The service refused the video stream");
    });
    socket.onclose = () => this.say("The video has stopped.");
    this.times = [];
    await this.video.play();
    this.#record();
    this.#send();
  }

  #send() {
    if (!this.socket || this.socket.readyState !== WebSocket.OPEN) return;
    if (this.video.ended || this.video.currentTime > LONGEST && !this.video.srcObject) {
      this.stop();
      return;
    }
    this.#grab(SIDE).toBlob((blob) => { if (blob && this.socket?.readyState === WebSocket.OPEN) this.socket.send(blob); }, "image/jpeg", 0.9);
  }

  async #received(data) {
    if (typeof data === "string") {
      const facts = JSON.parse(data);
      if (facts.problem) {
        this.fail(new Error(facts.problem.detail));
        this.#send();
      }
      this.times.push(performance.now());
      this.times = this.times.slice(-20);
      const seconds = (this.times.at(-1) - this.times[0]) / 1000;
      const rate = seconds ? ((this.times.length - 1) / seconds).toFixed(1) : "-";
      this.rate.textContent = `${rate} frames a second, ${Math.round(facts.milliseconds)} ms each`;
      return;
    }
    const picture = await createImageBitmap(data);
    if (this.canvas.width !== picture.width || this.canvas.height !== picture.height) {
      [this.canvas.width, this.canvas.height] = [picture.width, picture.height];
    }
    this.canvas.getContext("2d").drawImage(picture, 0, 0);
    this.#send(); // the next frame when this one is done: the delay stays that of one frame
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
