# shellcheck shell=bash disable=SC2034  # variables are for the recipe
# The energy of lanmt_continuous, beside the score of lanmt_refiner.sh, whose rows show both.

lanmt_refiner_energy_data=(distilled)
lanmt_refiner_energy_after=lanmt_continuous
lanmt_refiner_energy_seeds=(2 3)

lanmt_refiner_energy_train() {
  train_refiner energy "$@"
}
