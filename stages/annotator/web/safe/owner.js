/** One tab of a browser works on a task at a time; the others say so, and can take it over. */

/**
 * Hold a task until `release` is called or another tab takes it.
 * @param {string} account
 * @param {number} taskId
 * @param {{takeOver?: boolean, onLost: () => void}} options
 * @returns {Promise<(() => void) | null>} The function that releases it, or null where another tab has it.
 */
export function holdTask(account, taskId, { takeOver = false, onLost }) {
  return new Promise((resolve) => {
    const options = /** @type {LockOptions} */ (takeOver ? { steal: true } : { ifAvailable: true });
    navigator.locks
      .request(`gigamask ${account} task ${taskId}`, options, (lock) => {
        if (!lock) return resolve(null);
        return new Promise((release) => resolve(() => release(undefined)));
      })
      .catch(() => onLost());
  });
}
