/** One tab of a browser works on a task at a time; the others say so, and can take it over. */

const HAND_OVER_MS = 3000;

/**
 * Hold a task until `release` is called or another tab takes it.
 * A tab that takes over asks first, so that the other one can bring its last act into safety.
 * @param {string} account
 * @param {number} taskId
 * @param {{takeOver?: boolean, onAsked: () => unknown}} options `onAsked` has to lead to the release.
 * @returns {Promise<(() => void) | null>} The function that releases it, or null where another tab has it.
 */
export async function holdTask(account, taskId, { takeOver = false, onAsked }) {
  const name = `gigamask ${account} task ${taskId}`;
  if (!takeOver) return hold(name, { ifAvailable: true }, onAsked);
  const channel = new BroadcastChannel(name);
  channel.postMessage("take over");
  channel.close();
  try {
    return await hold(name, { signal: AbortSignal.timeout(HAND_OVER_MS) }, onAsked);
  } catch {
    return hold(name, { steal: true }, onAsked); // the other tab is frozen or has crashed
  }
}

/**
 * @param {string} name
 * @param {LockOptions} options
 * @param {() => unknown} onAsked
 * @returns {Promise<(() => void) | null>}
 */
function hold(name, options, onAsked) {
  let isHeld = false;
  return new Promise((resolve, reject) => {
    navigator.locks
      .request(name, options, (lock) => {
        if (!lock) return resolve(null);
        return new Promise((end) => {
          isHeld = true;
          const channel = new BroadcastChannel(name);
          channel.onmessage = () => void onAsked();
          resolve(() => {
            channel.close();
            end(undefined);
          });
        });
      })
      .catch((error) => {
        if (isHeld) void onAsked(); // it was stolen
        else reject(error);
      });
  });
}
