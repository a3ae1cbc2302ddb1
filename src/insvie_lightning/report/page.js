
const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
const rows = document.querySelectorAll(".clips");
const start = (row) => row.querySelectorAll("video").forEach((clip) => clip.play().catch(() => {}));
const stop = (row) => row.querySelectorAll("video").forEach((clip) => clip.pause());
const seen = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) isIntersecting && !still ? start(target) : stop(target);
});
for (const row of rows) {
  const [first, ...others] = row.querySelectorAll("video");
  if (!first) continue;
  for (const clip of [first, ...others]) {
    clip.addEventListener("loadedmetadata", () => clip.classList.toggle("tiny", clip.videoWidth < 160));
  }
  seen.observe(row);
  row.addEventListener("click", () => (first.paused ? start(row) : stop(row)));
  // Clips beside one another are compared frame by frame, so they must not drift apart.
  first.addEventListener("timeupdate", () => {
    for (const clip of others) if (Math.abs(clip.currentTime - first.currentTime) > 0.06) clip.currentTime = first.currentTime;
  });
}
