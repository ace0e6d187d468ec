class CreateVisits < ActiveRecord::Migration[6.1]
  def change
    create_table :visits do |t|
      t.integer :site, null: false
      t.string :path, null: false
      t.integer :hits, null: false, default: 0
      t.string :referrer
      t.datetime :at, precision: 6, null: false
      t.index :site
    end
  end
end
